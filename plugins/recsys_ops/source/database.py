"""Reading the production database: read-only, in UTC, with a time limit, no value changed.

PostgreSQL is read through Arrow's driver (ADBC, the server's binary COPY), MySQL, MariaDB and
SQLite row by row. The same values become the same canonical rows from each of them:

- Exact numerics are decimals. Where no decimal can hold them (no declared scale, more than 38
  digits), they are text without the zeros that end a fraction.
- Booleans and bits are integers, bytes are hexadecimal digits.
- A type for which Polars has no exact equivalent is text, as the database writes it: uuid, inet,
  json, intervals. So are the times of MySQL and SQLite, because they can be invalid dates. A MySQL
  TIMESTAMP gets the offset ``+00:00``. An array is a list in JSON.
- Text is UTF-8, whatever the database's encoding is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import adbc_driver_postgresql.dbapi
import polars as pl
import psycopg.sql
import pyarrow as pa
import sqlalchemy as sa
from pymysql.cursors import SSCursor
from sqlalchemy.dialects import postgresql

from recsys_ops.errors import DataError
from recsys_ops.source.columns import (
    Described,
    as_common,
    check_calendar,
    check_utf8,
    column,
    common_schema,
    with_decimals,
)
from recsys_ops.source.session import (
    begin_read_only,
    bind_times,
    database_session,
    transaction_limits,
    translate_errors,
)
from recsys_ops.source.sql import as_query

Query = Callable[[Mapping[str, datetime]], Iterator[pa.Table]]
_ROWS_AT_ONCE = 20_000
_NOTHING: Mapping[str, None] = defaultdict(lambda: None)
# PostgreSQL's int8, int2, int4, text, float8, char(n), varchar, date, timestamp, timestamptz
_EXACT = {20, 21, 23, 25, 701, 1042, 1043, 1082, 1114, 1184}
# bool, bytea, float4, inet, bit; the others are cast to text. A cast alone would add digits to a
# float4 and /32 to an address
_CONVERTED = {
    16: "CAST({} AS int)",
    17: "encode({}, 'hex')",
    700: "CAST(CAST({} AS text) AS float8)",
    869: "textin(inet_out({}))",
    1560: "CAST({} AS int8)",
}
_NUMERIC = 1700


def query_frame(
    database: sa.URL, sql: str, parameters: Mapping[str, datetime], *, timeout_s: int
) -> pl.DataFrame:
    """Run one query and return its rows as delivered, in its order.

    Memory grows with the frame. Raises the errors of `open_query`.
    """
    with open_query(database, sql, timeout_s=timeout_s) as query:
        frames = [pl.DataFrame(table) for table in query(parameters)]
    common = common_schema(frame.schema for frame in frames)
    return pl.concat(frame.select(as_common(frame.schema, common)) for frame in frames)


@contextmanager
def open_query(database: sa.URL, sql: str, *, timeout_s: int) -> Iterator[Query]:
    """Connect, and yield a function that runs the query and yields tables of some thousand rows.

    The function takes the times that the query names, e.g. as ``:start``, with a time zone. The
    first table may be empty, but has the columns. Each call is a read-only transaction of its own,
    in UTC, and no statement runs longer than `timeout_s` seconds. In MySQL and SQLite the type of a
    column is that of its values in the table, text if they mix; see `common_schema`.

    Raises SourceError, with the host and what to check, when the database does not answer or takes
    too long, and DataError when it refuses the query or delivers values that no frame can hold.
    """
    with ExitStack() as stack:
        with translate_errors(database):
            run = (_arrow if database.get_backend_name() == "postgresql" else _rows)(
                stack, database, sql, timeout_s
            )

        def query(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
            with translate_errors(database):
                yield from run(parameters)

        yield query


def _arrow(stack: ExitStack, database: sa.URL, sql: str, timeout_s: int) -> Query:
    with database_session(database, timeout_s) as connection:
        begin_read_only(connection, timeout_s)
        driver: Any = connection.connection.driver_connection
        described = driver.execute(
            f"SELECT * FROM (\n{render_sql(sql, _NOTHING)}\n) AS delivered LIMIT 0"  # noqa: S608
        ).description
        secrets = {
            "password": driver.info.password,
            "sslpassword": database.query.get("sslpassword"),
        }
        # SQL_ASCII is no encoding: the server converts nothing, and could not say which column
        is_ascii = driver.info.parameter_status("server_encoding") == "SQL_ASCII"
        conninfo = psycopg.conninfo.make_conninfo(
            **driver.info.get_parameters()
            | {name: secret for name, secret in secrets.items() if secret}
            | {"client_encoding": "SQL_ASCII" if is_ascii else "UTF8"}
        )
        array_types = driver.execute(
            "SELECT oid FROM pg_type WHERE typcategory = 'A' AND oid = ANY(%s)",
            [[column.type_code for column in described]],
        )
        arrays = dict.fromkeys((oid for (oid,) in array_types), "CAST(array_to_json({}) AS text)")
    columns = _columns(described, _CONVERTED | arrays)
    scales = {column.name: column.scale for column in described if column.type_code == _NUMERIC}
    arrow = stack.enter_context(adbc_driver_postgresql.dbapi.connect(conninfo))

    def run(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
        with arrow.cursor() as cursor:
            for statement in transaction_limits(timeout_s):
                cursor.execute(statement)
            cursor.execute(
                f"SELECT {columns} FROM (\n{render_sql(sql, parameters)}\n) AS delivered"  # noqa: S608
            )
            reader = cursor._results.reader  # the errors of the public reader lack the SQLSTATE
            yield with_decimals(reader.schema.empty_table(), scales)
            rows = 0
            for batch in reader:
                table = pa.Table.from_batches([batch])
                if is_ascii:
                    check_utf8(table, rows)
                check_calendar(table)
                yield with_decimals(table, scales)
                rows += table.num_rows
        arrow.rollback()

    return run


def render_sql(sql: str, parameters: Mapping[str, datetime | None]) -> str:
    """The query for PostgreSQL with its parameters inserted: COPY takes no parameters."""
    dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    compiled = sa.text(as_query(sql, "postgresql")).compile(dialect=dialect)
    try:
        literals = {
            name: f"CAST({psycopg.sql.Literal(parameters[name]).as_string()} AS timestamptz)"
            for name in compiled.params
        }
    except KeyError as error:
        raise DataError(
            f"the query names :{error.args[0]}, which has no value; "
            "write \\: for a colon in the code of include/sql"
        ) from None
    return str(compiled) % literals


def _columns(described: Iterable[psycopg.Column], converted: Mapping[int, str]) -> str:
    """The columns to select, cast to text where Polars has no exact type.

    converted : how a column of another type than text is written, by type
    """
    columns = {column.name: column.type_code for column in described}
    _check_names([column.name for column in described])
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in columns}
    return ", ".join(
        quoted[name]
        if type_code in _EXACT
        else f"{converted.get(type_code, 'CAST({} AS text)').format(quoted[name])} "
        f"AS {quoted[name]}"
        for name, type_code in columns.items()
    )


def _rows(stack: ExitStack, database: sa.URL, sql: str, timeout_s: int) -> Query:
    connection = stack.enter_context(database_session(database, timeout_s))

    def run(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
        begin_read_only(connection, timeout_s)
        query = as_query(sql, database.get_backend_name())
        statement = sa.text(query).execution_options(stream_results=True)
        result = connection.execute(statement, bind_times(database, parameters))
        cursor = result.cursor
        try:
            described = [
                Described(name, code, scale) for name, code, *_, scale, _ in cursor.description
            ]
            names = [column.name for column in described]
            _check_names(names)
            yield pa.schema((name, pa.null()) for name in names).empty_table()
            before = 0
            for rows in result.partitions(_ROWS_AT_ONCE):
                values = zip(*rows, strict=True)
                yield pl.DataFrame(
                    [column(*each, before) for each in zip(described, values, strict=True)]
                ).to_arrow()
                before += len(rows)
        except BaseException:
            _abandon(cursor)
            connection.invalidate()
            raise
        connection.rollback()

    return run


def _abandon(cursor: Any) -> None:
    """Keep PyMySQL from reading the remaining rows when the cursor is deleted."""
    if isinstance(cursor, SSCursor) and cursor._result is not None:
        cursor._result.unbuffered_active = False


def _check_names(names: list[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(
            f"the query delivers two columns named {', '.join(duplicates)}: "
            "give one another name in include/sql"
        )
