"""Reading the production database: short read-only transactions in UTC, a time limit, Arrow tables without a changed value.

PostgreSQL is read through Arrow's own driver (ADBC, the server's binary COPY), MySQL, MariaDB and SQLite row by row. What
Polars has no exact type for is delivered as text, as the database writes it: numeric, uuid, inet, json, arrays, intervals and
bytes; times of MySQL and SQLite as well, since theirs need not be on any calendar. A MySQL TIMESTAMP gets the offset ``+00:00``.
"""

import re
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import polars as pl
import psycopg.sql
import pyarrow as pa
import sqlalchemy as sa
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import SSCursor
from sqlalchemy.dialects import postgresql

from recsys_ops.errors import DataError, SourceError

Query = Callable[[Mapping[str, datetime]], Iterator[pa.Table]]

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
}
_ROWS_AT_ONCE = 20_000
_NOTHING: Mapping[str, None] = defaultdict(lambda: None)
# a server that vanishes without a word is given up after two minutes, not after the kernel's two hours
_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}
# bool, int8, int2, int4, text, float8, char(n), varchar, date, timestamp, timestamptz
_EXACT = {16, 20, 21, 23, 25, 701, 1042, 1043, 1082, 1114, 1184}
# how the others become text; a cast alone would add /32 to an address and digits to a float4
_AS_TEXT = {700: "CAST(CAST({} AS text) AS float8)", 869: "textin(inet_out({}))"}
# PyMySQL leaves as text what has no reader here: decimals, dates and times, of which '0000-00-00' is one
_KEPT = {
    FIELD_TYPE.TINY,
    FIELD_TYPE.SHORT,
    FIELD_TYPE.INT24,
    FIELD_TYPE.LONG,
    FIELD_TYPE.LONGLONG,
    FIELD_TYPE.YEAR,
}
_MYSQL = {
    kind: reader
    for kind, reader in conversions.items()
    if not isinstance(kind, int) or kind in _KEPT
} | {
    FIELD_TYPE.FLOAT: float,
    FIELD_TYPE.DOUBLE: float,
    FIELD_TYPE.TIMESTAMP: "{}+00:00".format,
}
# what a try later can mend: server, disk or memory full, login, shut down, network, locks, a replica's lag, killed, out of time
_POSTGRESQL_PASSING = {
    "08",
    "28",
    "3D",
    "40",
    "53",
    "55",
    "57",
    "58",
    "HV",
    "XX",
}  # classes of SQLSTATE
_MYSQL_PASSING = {1021, 1037, 1038, 1040, 1041, 1044, 1045, 1053, 1135, *range(1152, 1162)}
_MYSQL_PASSING |= {1203, 1205, 1213, 1226, 1317, 1927, 1969, 3024}


def sqlalchemy_url(
    conn_type: str, *, extra: Mapping[str, Any] | None = None, **parts: Any
) -> sa.URL:
    """The SQLAlchemy URL of an Airflow connection's parts: username, password, host, port, database.

    extra : options of the driver, e.g. ``{"sslmode": "verify-full"}`` of PostgreSQL, ``{"ssl_ca": "…"}`` of MySQL.
    Of SQLite, the host or the database is the file.
    """
    options = {name: str(value) for name, value in (extra or {}).items()}
    if conn_type == "sqlite":
        return sa.URL.create("sqlite", database=parts.get("host") or parts.get("database"))
    return sa.URL.create(_DRIVERS.get(conn_type, conn_type), **parts, query=options)


def query_frame(
    database: sa.URL, sql: str, parameters: Mapping[str, datetime], *, timeout_s: int
) -> pl.DataFrame:
    """Run one query and return its rows as delivered, in its order; memory grows with the frame. Raises as `opened` does."""
    with open_query(database, sql, timeout_s=timeout_s) as query:
        frames = [pl.DataFrame(table) for table in query(parameters)]
    common = common_schema(frame.schema for frame in frames)
    return pl.concat(frame.select(as_common(frame.schema, common)) for frame in frames)


@contextmanager
def open_query(database: sa.URL, sql: str, *, timeout_s: int) -> Iterator[Query]:
    """Connect, and yield what runs the query: a function of its parameters that yields the rows in tables of some thousands.

    The parameters are the instants that the query names, as ``:start``, with a time zone. The first table may be empty, but has
    the columns. Each call is a read-only transaction of its own, in UTC, and no statement runs longer than `timeout_s` seconds.
    A column of MySQL or SQLite has in each table the type of its values there, text where they mix; see `common_schema`.

    Raises SourceError naming the host and what to check when the database is away or takes too long, and DataError when it
    refuses the query or delivers what no frame can hold.
    """
    with ExitStack() as stack:
        with _translated(database):
            run = (_arrow if database.get_backend_name() == "postgresql" else _rows)(
                stack, database, sql, timeout_s
            )

        def query(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
            with _translated(database):
                yield from run(parameters)

        yield query


@contextmanager
def database_session(database: sa.URL, timeout_s: int) -> Iterator[sa.Connection]:
    """A connection that can only read, in UTC, once `begin` has been called for the transaction."""
    kind = database.get_backend_name()
    arguments: dict[str, Any] = {}
    match kind:
        case "postgresql":
            arguments = {
                name: value for name, value in _LIBPQ.items() if name not in database.query
            }
        case "mysql" | "mariadb":
            secret = (database.password or "").encode()  # PyMySQL would take text for latin1
            arguments = {
                "charset": "utf8mb4",
                "conv": _MYSQL,
                "read_timeout": timeout_s + 30,
                "password": secret,
            }
        case "sqlite":
            database = database.set(
                database=f"file:{quote(database.database or '')}",
                query={"mode": "ro", "uri": "true"},
            )
            arguments = {"check_same_thread": False}
    engine = sa.create_engine(
        database, hide_parameters=True, poolclass=sa.NullPool, connect_args=arguments
    )
    with engine.connect() as connection:
        if kind in ("mysql", "mariadb"):
            limit = (
                f"max_statement_time = {timeout_s}"
                if _is_mariadb(engine)
                else f"max_execution_time = {timeout_s * 1000}"
            )
            for statement in ("time_zone = '+00:00'", limit, "TRANSACTION READ ONLY"):
                connection.exec_driver_sql(f"SET SESSION {statement}")
            connection.rollback()
        yield connection


def begin_read_only(connection: sa.Connection, timeout_s: int) -> None:
    """What must be said anew in each transaction."""
    match connection.dialect.name:
        case "postgresql":
            for statement in _limits(timeout_s):
                connection.exec_driver_sql(statement)
        case "sqlite":
            end = time.monotonic() + timeout_s
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda: time.monotonic() > end, 100_000)


def bind_times(database: sa.URL, parameters: Mapping[str, datetime]) -> dict[str, Any]:
    """The instants as the database compares them: MySQL and SQLite know no offset and get UTC's wall clock."""
    if database.get_backend_name() == "postgresql":
        return dict(parameters)
    return {
        name: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for name, moment in parameters.items()
    }


def common_schema(schemas: Iterable[Mapping[str, pl.DataType]]) -> dict[str, pl.DataType]:
    """Every column with its type; text where the schemas differ, since text alone holds all their values, or all are Null."""
    kinds: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, kind in schema.items():
            kinds.setdefault(name, set()).add(kind)
    found = {name: of_column - {pl.Null()} for name, of_column in kinds.items()}
    return {
        name: next(iter(kind)) if len(kind) == 1 else pl.String() for name, kind in found.items()
    }


def as_common(
    schema: Mapping[str, pl.DataType], common: Mapping[str, pl.DataType]
) -> list[pl.Expr]:
    """The expressions that give a frame of one schema the common one."""
    return [
        (pl.col(name) if name in schema else pl.lit(None)).cast(kind).alias(name)
        for name, kind in common.items()
    ]


def _arrow(stack: ExitStack, database: sa.URL, sql: str, timeout_s: int) -> Query:
    with database_session(database, timeout_s) as connection:
        begin_read_only(connection, timeout_s)
        driver: Any = connection.connection.driver_connection
        described = driver.execute(
            f"SELECT * FROM (\n{render_sql(sql, _NOTHING)}\n) AS delivered LIMIT 0"
        ).description
        password = {"password": driver.info.password} if driver.info.password else {}
        conninfo = psycopg.conninfo.make_conninfo(**driver.info.get_parameters(), **password)
    columns = _columns(described)
    arrow = stack.enter_context(adbc_driver_postgresql.dbapi.connect(conninfo))

    def run(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
        with arrow.cursor() as cursor:
            for statement in _limits(timeout_s):
                cursor.execute(statement)
            cursor.execute(
                f"SELECT {columns} FROM (\n{render_sql(sql, parameters)}\n) AS delivered"
            )
            reader = cursor._results.reader  # the public one's errors lack the SQLSTATE
            yield reader.schema.empty_table()
            for batch in reader:
                table = pa.Table.from_batches([batch])
                _check_calendar(table)
                yield table
        arrow.rollback()

    return run


def render_sql(sql: str, parameters: Mapping[str, datetime | None]) -> str:
    """The query for PostgreSQL with its parameters in it: neither COPY nor a description takes any."""
    compiled = sa.text(_bare(sql)).compile(dialect=postgresql.dialect(paramstyle="pyformat"))  # type: ignore[no-untyped-call]
    try:
        instants = {
            name: f"CAST({psycopg.sql.Literal(parameters[name]).as_string()} AS timestamptz)"
            for name in compiled.params
        }
    except KeyError as error:
        raise DataError(
            f"the query names :{error.args[0]}, which is not bound; write \\: for a colon in include/sql"
        ) from None
    return str(compiled) % instants


def _columns(described: Iterable[psycopg.Column]) -> str:
    """The columns to select, as text where Polars has no exact type."""
    columns = {column.name: column.type_code for column in described}
    _check_names([column.name for column in described])
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in columns}
    return ", ".join(
        quoted[name]
        if kind in _EXACT
        else f"{_AS_TEXT.get(kind, 'CAST({} AS text)').format(quoted[name])} AS {quoted[name]}"
        for name, kind in columns.items()
    )


def _limits(timeout_s: int) -> list[str]:
    return [
        "SET TRANSACTION READ ONLY",
        f"SET LOCAL statement_timeout = {timeout_s * 1000}",
        "SET LOCAL TimeZone = 'UTC'",
        # with the server's default of 4 MB a slice of 20,000 rows is sorted on its disk
        "SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')), 32 << 20) / 1024 || 'kB', true)",
    ]


def _check_calendar(table: pa.Table) -> None:
    """Raises DataError for PostgreSQL's infinity and for years that no calendar of Polars has."""
    times = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    bounds = pl.all().cast(pl.Date).is_between(date(1, 1, 1), date(9999, 12, 31))
    for name, good in (
        pl.DataFrame(table.select(times)).select(bounds.all()).to_dicts()[0].items()
        if times
        else ()
    ):
        if not good:
            raise DataError(
                f"column {name} holds an infinite time or a year outside 1 … 9999: cast it to text in include/sql"
            )


def _rows(stack: ExitStack, database: sa.URL, sql: str, timeout_s: int) -> Query:
    connection = stack.enter_context(database_session(database, timeout_s))

    def run(parameters: Mapping[str, datetime]) -> Iterator[pa.Table]:
        begin_read_only(connection, timeout_s)
        statement = sa.text(_bare(sql)).execution_options(stream_results=True)
        result = connection.execute(statement, bind_times(database, parameters))
        unread = result.cursor
        try:
            names = list(result.keys())
            _check_names(names)
            yield pa.schema((name, pa.null()) for name in names).empty_table()
            for rows in result.partitions(_ROWS_AT_ONCE):
                columns = zip(names, zip(*rows, strict=True), strict=True)
                yield pl.DataFrame([_column(name, values) for name, values in columns]).to_arrow()
        except BaseException:
            _abandon(unread)
            connection.invalidate()
            raise
        connection.rollback()

    return run


def _abandon(cursor: Any) -> None:
    """PyMySQL would read the rest of the rows when it forgets a cursor, even over a connection that is gone."""
    if isinstance(cursor, SSCursor) and cursor._result is not None:
        cursor._result.unbuffered_active = False


def _column(name: str, values: tuple[Any, ...]) -> pl.Series:
    """The values in the type that they share; as text where they mix or are integers beyond 64 bits; bytes in hexadecimal."""
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) > 1 and bytes in kinds:
        raise DataError(
            f"column {name} mixes bytes with other values: cast it to text in include/sql"
        )
    if len(kinds) > 1:
        return pl.Series(name, values, dtype=pl.String, strict=False)
    series = pl.Series(name, values)
    if series.dtype == pl.Binary:
        return series.bin.encode("hex")
    return series.cast(pl.String) if series.dtype == pl.Int128 else series


def _bare(sql: str) -> str:
    return sql.strip().rstrip(";")


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"the query delivers two columns named {', '.join(twice)}: give one another name in include/sql"
        )


def _is_mariadb(engine: sa.Engine) -> bool:
    return bool(getattr(engine.dialect, "is_mariadb", False))


@contextmanager
def _translated(database: sa.URL) -> Iterator[None]:
    """What the drivers raise, as ours: SourceError for what a try later can mend, DataError for what it cannot.

    Theirs are cut off, not chained: a traceback must not show the values that their words may quote.
    """
    name = database.database or database.host
    where = f"{database.get_backend_name()} database {name!r} on {database.host or 'this machine'}"
    try:
        yield
    except (
        sa.exc.StatementError,
        psycopg.Error,
        adbc_driver_manager.Error,
        pa.ArrowException,
        OSError,
    ) as error:
        cause = error.orig if isinstance(error, sa.exc.StatementError) else error
        if _refused(cause):
            raise DataError(
                f"{where} refused the query: {_said(cause)}; check include/sql and the account's rights"
            ) from None
        raise SourceError(
            f"{where} is away or gave up: {_said(cause)}; check connection, load and time limit"
        ) from None
    except (sa.exc.ArgumentError, ImportError) as error:
        raise DataError(
            f"{where} needs a driver that is not installed: {error}; check the connection's type"
        ) from error


def _refused(error: Any) -> bool:
    """Whether the database, or the driver before it, answered and will answer the same again."""
    if isinstance(error, psycopg.ProgrammingError | sa.exc.InvalidRequestError | pa.ArrowInvalid):
        return True
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in (
            None,
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_READONLY,
        )
    if isinstance(error, psycopg.Error | adbc_driver_manager.Error):
        return error.sqlstate is not None and error.sqlstate[:2] not in _POSTGRESQL_PASSING
    code = error.args[0] if error.args else None
    return (
        isinstance(code, int)
        and not isinstance(error, OSError)
        and not (2000 <= code < 3000 or code in _MYSQL_PASSING)
    )


def _said(error: Any) -> str:
    """The first line of the driver's words, without the value of a row that some databases quote."""
    line = str(error).strip().partition("\n")[0]
    line = (
        re.sub(r"^.*?(ERROR|FATAL): +", "", line)
        if "[libpq]" in line or line.startswith("NOT_FOUND")
        else line
    )
    return re.sub(r"""(: |value |with text )["'].*""", r"\1…", line)
