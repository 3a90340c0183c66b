"""Reading the production database: one read-only transaction, a time limit, bound parameters, a Polars frame."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import sqlalchemy as sa
from psycopg.types.string import TextLoader

from recsys_ops.errors import SourceError

_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
# what Polars has no exact type for is delivered as the database writes it; fix_types reads it strictly
_AS_TEXT = ("uuid", "inet", "cidr", "numeric", "json", "jsonb")
_ROWS_AT_ONCE = 50_000


def url(conn_type: str, **parts: Any) -> sa.URL:
    """The SQLAlchemy URL of an Airflow connection's parts (username, password, host, port, database)."""
    return sa.URL.create(_DRIVERS.get(conn_type, conn_type), **parts)


def read(database: sa.URL, sql: str, parameters: Mapping[str, Any], *, timeout_s: int) -> pl.DataFrame:
    """Run one query and return its rows as delivered; memory grows with the frame, the driver holds 50,000 rows at once.

    Raises SourceError naming the host and what to check when the database is away, refuses the query or takes too long.
    On other databases than PostgreSQL the account alone must see to it that nothing is written, and there is no time limit.
    """
    where = f"{database.get_backend_name()} database {database.database!r} on {database.host or 'this machine'}"
    try:
        engine = sa.create_engine(database, hide_parameters=True, poolclass=sa.NullPool)
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                _prepare(connection, timeout_s)
            result = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(sa.text(sql), dict(parameters))
            frame = pl.DataFrame(schema=dict.fromkeys(result.keys(), pl.Null))
            parts = [
                pl.DataFrame(rows, schema=frame.columns, orient="row", infer_schema_length=None) for rows in result.partitions()
            ]
            return pl.concat([frame, *parts], how="vertical_relaxed")
    except sa.exc.OperationalError as error:
        raise SourceError(f"{where} is away or gave up: {_first_line(error)}; check connection, load and time limit") from error
    except sa.exc.DBAPIError as error:
        raise SourceError(f"{where} refused the query: {_first_line(error)}; check include/sql") from error
    except (sa.exc.ArgumentError, ImportError) as error:
        raise SourceError(f"{where} needs a driver that is not installed: {error}; check the connection's type") from error
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise SourceError(f"{where}: a column mixes types ({type(error).__name__}); cast it to text in include/sql") from error


def _prepare(connection: sa.Connection, timeout_s: int) -> None:
    driver: Any = connection.connection.driver_connection
    for name in _AS_TEXT:
        driver.adapters.register_loader(name, TextLoader)
    for statement in ("TRANSACTION READ ONLY", f"LOCAL statement_timeout = {timeout_s * 1000}", "LOCAL TimeZone = 'UTC'"):
        connection.execute(sa.text(f"SET {statement}"))


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
