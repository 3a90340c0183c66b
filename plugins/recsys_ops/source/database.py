"""Reading the production database: one read-only transaction, a time limit, bound parameters, a Polars frame."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import sqlalchemy as sa

from recsys_ops.errors import SourceError

_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_READ_ONLY = {
    "postgresql": ("SET TRANSACTION READ ONLY", "SET LOCAL statement_timeout = {milliseconds}", "SET LOCAL TimeZone = 'UTC'"),
    "mysql": ("SET SESSION max_execution_time = {milliseconds}", "SET time_zone = '+00:00'", "START TRANSACTION READ ONLY"),
    "mariadb": ("SET max_statement_time = {seconds}", "SET time_zone = '+00:00'", "START TRANSACTION READ ONLY"),
}


def url(conn_type: str, **parts: Any) -> sa.URL:
    """The SQLAlchemy URL of an Airflow connection's parts (username, password, host, port, database)."""
    return sa.URL.create(_DRIVERS.get(conn_type, conn_type), **parts)


def read(database: sa.URL, sql: str, parameters: Mapping[str, Any], *, timeout_s: int) -> pl.DataFrame:
    """Run one query and return its rows as delivered; memory grows with the rows.

    Raises SourceError naming the host and what to check when the database is away, refuses the query or takes too long.
    """
    engine = sa.create_engine(database, hide_parameters=True, poolclass=sa.NullPool)
    where = f"{engine.dialect.name} database {database.database!r} on {database.host or 'this machine'}"
    try:
        with engine.connect() as connection:
            for statement in _READ_ONLY.get(engine.dialect.name, ()):
                connection.execute(sa.text(statement.format(milliseconds=timeout_s * 1000, seconds=timeout_s)))
            result = connection.execute(sa.text(sql), dict(parameters))
            return pl.DataFrame(result.fetchall(), schema=list(result.keys()), orient="row", infer_schema_length=None)
    except sa.exc.OperationalError as error:
        raise SourceError(f"{where} is away or gave up: {_first_line(error)}; check connection, load and time limit") from error
    except sa.exc.SQLAlchemyError as error:
        raise SourceError(f"{where} refused the query: {_first_line(error)}; check include/sql") from error
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise SourceError(f"{where}: a column mixes types ({error}); cast it to text in include/sql") from error
    finally:
        engine.dispose()


def _first_line(error: sa.exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]
