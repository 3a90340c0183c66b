"""Tables in a database of its own, and queries that read them as the extract does."""

from datetime import UTC, datetime

import polars as pl
import sqlalchemy as sa

from recsys_ops.source.database import query_frame

DAY = {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 3, tzinfo=UTC)}


def make(url: str | sa.URL, *statements: str) -> sa.URL:
    """Execute the statements and return the URL."""
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for statement in statements:
            connection.execution_options(no_parameters=True).exec_driver_sql(statement)
    return sa.make_url(url)


def read(url: str | sa.URL, sql: str, timeout_s: int = 30, **parameters: datetime) -> pl.DataFrame:
    """The rows of a query that names these times."""
    return query_frame(sa.make_url(url), sql, parameters, timeout_s=timeout_s)
