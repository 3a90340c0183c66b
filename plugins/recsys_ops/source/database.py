"""Reading the production database: read-only, in UTC, with a time limit, no value changed.

PostgreSQL is read through Arrow's driver (ADBC, the server's binary COPY), MySQL, MariaDB and
SQLite row by row. A type for which Polars has no exact equivalent is delivered as text, as the
database writes it: numeric, uuid, inet, json, arrays, intervals, bytes. So are the times of MySQL
and SQLite, because they can be invalid dates. A MySQL TIMESTAMP gets the offset ``+00:00``.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from typing import Any

import adbc_driver_postgresql.dbapi
import polars as pl
import psycopg.sql
import pyarrow as pa
import sqlalchemy as sa
from pymysql.cursors import SSCursor
from sqlalchemy.dialects import postgresql

from recsys_ops.errors import DataError
from recsys_ops.source.session import (
    begin_read_only,
    bind_times,
    database_session,
    transaction_limits,
    translate_errors,
)

Query = Callable[[Mapping[str, datetime]], Iterator[pa.Table]]
_ROWS_AT_ONCE = 20_000
_NOTHING: Mapping[str, None] = defaultdict(lambda: None)
# bool, int8, int2, int4, text, float8, char(n), varchar, date, timestamp, timestamptz
_EXACT = {16, 20, 21, 23, 25, 701, 1042, 1043, 1082, 1114, 1184}
# how some others become text: a cast alone would add /32 to an address and digits to a float4
_AS_TEXT = {700: "CAST(CAST({} AS text) AS float8)", 869: "textin(inet_out({}))"}


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


def common_schema(schemas: Iterable[Mapping[str, pl.DataType]]) -> dict[str, pl.DataType]:
    """Every column with its type: text if the schemas differ or all are Null."""
    dtypes: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            dtypes.setdefault(name, set()).add(dtype)
    not_null = {name: of_column - {pl.Null()} for name, of_column in dtypes.items()}
    return {
        name: next(iter(of_column)) if len(of_column) == 1 else pl.String()
        for name, of_column in not_null.items()
    }


def as_common(
    schema: Mapping[str, pl.DataType], common: Mapping[str, pl.DataType]
) -> list[pl.Expr]:
    """The expressions that convert a frame from its schema to the common one."""
    return [
        (pl.col(name) if name in schema else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in common.items()
    ]


def _arrow(stack: ExitStack, database: sa.URL, sql: str, timeout_s: int) -> Query:
    with database_session(database, timeout_s) as connection:
        begin_read_only(connection, timeout_s)
        driver: Any = connection.connection.driver_connection
        described = driver.execute(
            f"SELECT * FROM (\n{render_sql(sql, _NOTHING)}\n) AS delivered LIMIT 0"  # noqa: S608
        ).description
        password = {"password": driver.info.password} if driver.info.password else {}
        conninfo = psycopg.conninfo.make_conninfo(**driver.info.get_parameters(), **password)
    columns = _columns(described)
    arrow = stack.enter_context(adbc_driver_postgresql.dbapi.connect(conninfo))

    def run(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
        with arrow.cursor() as cursor:
            for statement in transaction_limits(timeout_s):
                cursor.execute(statement)
            cursor.execute(
                f"SELECT {columns} FROM (\n{render_sql(sql, parameters)}\n) AS delivered"  # noqa: S608
            )
            reader = cursor._results.reader  # the errors of the public reader lack the SQLSTATE
            yield reader.schema.empty_table()
            for batch in reader:
                table = pa.Table.from_batches([batch])
                _check_calendar(table)
                yield table
        arrow.rollback()

    return run


def render_sql(sql: str, parameters: Mapping[str, datetime | None]) -> str:
    """The query for PostgreSQL with its parameters inserted: COPY takes no parameters."""
    dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    compiled = sa.text(_bare(sql)).compile(dialect=dialect)
    try:
        literals = {
            name: f"CAST({psycopg.sql.Literal(parameters[name]).as_string()} AS timestamptz)"
            for name in compiled.params
        }
    except KeyError as error:
        raise DataError(
            f"the query names :{error.args[0]}, which has no value; "
            "write \\: for a colon in include/sql"
        ) from None
    return str(compiled) % literals


def _columns(described: Iterable[psycopg.Column]) -> str:
    """The columns to select, cast to text where Polars has no exact type."""
    columns = {column.name: column.type_code for column in described}
    _check_names([column.name for column in described])
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in columns}
    return ", ".join(
        quoted[name]
        if type_code in _EXACT
        else f"{_AS_TEXT.get(type_code, 'CAST({} AS text)').format(quoted[name])} AS {quoted[name]}"
        for name, type_code in columns.items()
    )


def _check_calendar(table: pa.Table) -> None:
    """Raises DataError for PostgreSQL's infinity and for years that Polars cannot hold."""
    times = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    bounds = pl.all().cast(pl.Date).is_between(date(1, 1, 1), date(9999, 12, 31))
    for name, is_valid in (
        pl.DataFrame(table.select(times)).select(bounds.all()).to_dicts()[0].items()
        if times
        else ()
    ):
        if not is_valid:
            raise DataError(
                f"column {name} holds an infinite time or a year outside 1 … 9999: "
                "cast it to text in include/sql"
            )


def _rows(stack: ExitStack, database: sa.URL, sql: str, timeout_s: int) -> Query:
    connection = stack.enter_context(database_session(database, timeout_s))

    def run(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
        begin_read_only(connection, timeout_s)
        statement = sa.text(_bare(sql)).execution_options(stream_results=True)
        result = connection.execute(statement, bind_times(database, parameters))
        cursor = result.cursor
        try:
            names = list(result.keys())
            _check_names(names)
            yield pa.schema((name, pa.null()) for name in names).empty_table()
            for rows in result.partitions(_ROWS_AT_ONCE):
                columns = zip(names, zip(*rows, strict=True), strict=True)
                yield pl.DataFrame([_column(name, values) for name, values in columns]).to_arrow()
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


def _column(name: str, values: tuple[Any, ...]) -> pl.Series:
    """The values in their common type.

    They become text if their types mix or if they are integers beyond 64 bits. Bytes become
    hexadecimal digits.
    """
    types = set(map(type, values)) - {type(None)}
    if len(types) > 1 and bytes in types:
        raise DataError(
            f"column {name} mixes bytes with other values: cast it to text in include/sql"
        )
    if len(types) > 1:
        return pl.Series(name, values, dtype=pl.String, strict=False)
    series = pl.Series(name, values)
    if series.dtype == pl.Binary:
        return series.bin.encode("hex")
    return series.cast(pl.String) if series.dtype == pl.Int128 else series


def _bare(sql: str) -> str:
    return sql.strip().rstrip(";")


def _check_names(names: list[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(
            f"the query delivers two columns named {', '.join(duplicates)}: "
            "give one another name in include/sql"
        )
