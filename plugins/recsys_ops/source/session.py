"""Sessions with the production database: read-only, in UTC, with a time limit.

The drivers' errors become errors of this package, which say what to check and whether a retry can
help.
"""

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import adbc_driver_manager
import psycopg
import pyarrow as pa
import sqlalchemy as sa
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions

from recsys_ops.errors import DataError, SourceError

# a server that disappears silently is given up after two minutes, not the kernel's two hours
_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}
_POSTGRESQL_TEXT = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
}
# PyMySQL leaves a type without a reader as text: decimals, dates and times such as '0000-00-00'
_KEPT = {
    FIELD_TYPE.TINY,
    FIELD_TYPE.SHORT,
    FIELD_TYPE.INT24,
    FIELD_TYPE.LONG,
    FIELD_TYPE.LONGLONG,
    FIELD_TYPE.YEAR,
}
_MYSQL = {
    field_type: reader
    for field_type, reader in conversions.items()
    if not isinstance(field_type, int) or field_type in _KEPT
} | {
    FIELD_TYPE.BIT: int.from_bytes,
    FIELD_TYPE.FLOAT: float,
    FIELD_TYPE.DOUBLE: float,
    FIELD_TYPE.TIMESTAMP: "{}+00:00".format,
}
# errors that a retry can cure: server, disk or memory full, login, shutdown, network, locks,
# a lagging replica, a killed query, a time limit
_POSTGRESQL_TRANSIENT = {
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
_MYSQL_TRANSIENT = {1021, 1037, 1038, 1040, 1041, 1044, 1045, 1053, 1135, *range(1152, 1162)}
_MYSQL_TRANSIENT |= {1203, 1205, 1213, 1226, 1317, 1927, 1969, 3024}


@contextmanager
def database_session(database: sa.URL, timeout_s: int) -> Iterator[sa.Connection]:
    """A connection in UTC; after `begin_read_only` its transaction can only read."""
    backend = database.get_backend_name()
    arguments: dict[str, Any] = {}
    match backend:
        case "postgresql":
            waiting = {name: value for name, value in _LIBPQ.items() if name not in database.query}
            arguments = {**waiting, "client_encoding": "UTF8"}
        case "mysql" | "mariadb":
            secret = (database.password or "").encode()  # PyMySQL would encode text as latin1
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
        if backend in ("mysql", "mariadb"):
            limit = (
                f"max_statement_time = {timeout_s}"
                if _is_mariadb(engine)
                else f"max_execution_time = {timeout_s * 1000}"
            )
            for statement in ("time_zone = '+00:00'", limit, "TRANSACTION READ ONLY"):
                connection.exec_driver_sql(f"SET SESSION {statement}")
            connection.rollback()
        if backend == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.text_factory = _escaped_text
        yield connection


def _escaped_text(stored: bytes) -> str:
    """SQLite's text; a byte that is not UTF-8 becomes a surrogate, which no Series can hold."""
    return stored.decode(errors="surrogateescape")


def begin_read_only(connection: sa.Connection, timeout_s: int) -> None:
    """The limits that each transaction needs."""
    match connection.dialect.name:
        case "postgresql":
            for statement in transaction_limits(timeout_s):
                connection.exec_driver_sql(statement)
        case "sqlite":
            end = time.monotonic() + timeout_s
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda: time.monotonic() > end, 100_000)


def bind_times(database: sa.URL, parameters: Mapping[str, datetime]) -> dict[str, Any]:
    """The times as the database compares them: for MySQL and SQLite in UTC, without an offset."""
    if database.get_backend_name() == "postgresql":
        return dict(parameters)
    return {
        name: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for name, moment in parameters.items()
    }


def transaction_limits(timeout_s: int) -> list[str]:
    """The statements that begin a read-only transaction of PostgreSQL."""
    return [
        "SET TRANSACTION READ ONLY",
        f"SET LOCAL statement_timeout = {timeout_s * 1000}",
        # an account's own settings must not change how a value is written as text
        *(f"SET LOCAL {name} = '{value}'" for name, value in _POSTGRESQL_TEXT.items()),
        # with the default of 4 MB the server sorts a slice of 20,000 rows on its disk
        "SELECT set_config('work_mem', "
        "greatest(pg_size_bytes(current_setting('work_mem')), 32 << 20) / 1024 || 'kB', true)",
    ]


def _is_mariadb(engine: sa.Engine) -> bool:
    return bool(getattr(engine.dialect, "is_mariadb", False))


@contextmanager
def translate_errors(database: sa.URL) -> Iterator[None]:
    """Raise the drivers' errors as SourceError if a retry can cure them, else as DataError.

    The drivers' errors are not chained, because they may quote values.
    """
    name = database.database or database.host
    source = f"{database.get_backend_name()} database {name!r} on {database.host or 'this machine'}"
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
        if _is_final(cause):
            raise DataError(
                f"{source} refused the query: {_first_line(cause)}; "
                "check include/sql and the account's rights"
            ) from None
        raise SourceError(
            f"{source} does not answer or stopped: {_first_line(cause)}; "
            "check connection, load and time limit"
        ) from None


def _is_final(error: Any) -> bool:
    """Whether the database or the driver will give the same answer to a retry."""
    if isinstance(error, psycopg.ProgrammingError | sa.exc.InvalidRequestError | pa.ArrowInvalid):
        return True
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in (
            None,
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_READONLY,
        )
    if isinstance(error, psycopg.Error | adbc_driver_manager.Error):
        return error.sqlstate is not None and error.sqlstate[:2] not in _POSTGRESQL_TRANSIENT
    code = error.args[0] if error.args else None
    return (
        isinstance(code, int)
        and not isinstance(error, OSError)
        and not (2000 <= code < 3000 or code in _MYSQL_TRANSIENT)
    )


def _first_line(error: Any) -> str:
    """The first line of a driver's message, without the row's value that some databases quote."""
    line = str(error).strip().partition("\n")[0]
    line = (
        re.sub(r"^.*?(ERROR|FATAL): +", "", line)
        if "[libpq]" in line or line.startswith("NOT_FOUND")
        else line
    )
    return re.sub(r"""(: |value |with text )["'].*""", r"\1…", line)
