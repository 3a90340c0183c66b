"""A small shop, and the stores after its first two days."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import sqlalchemy as sa

from recsys_ops.demo import shop
from support.pipeline import Snapshot, State

OPENS = date(2026, 5, 1)
FIRST_DAY, SECOND_DAY = OPENS + timedelta(days=8), OPENS + timedelta(days=9)
SHOP = shop.Shop(shop.ShopSize(users=300, items=150, events_per_day=2_000), OPENS)
BUCKETS = 600  # more than a swap does in one round trip


@dataclass
class TwoDays:
    """For each (day, task): the stores before and after it, its seconds, the files it wrote."""

    before: dict[tuple[date, str], Snapshot] = field(default_factory=dict)
    after: dict[tuple[date, str], State] = field(default_factory=dict)
    seconds: dict[tuple[date, str], float] = field(default_factory=dict)
    written: dict[tuple[date, str], list[Path]] = field(default_factory=dict)
    end: Snapshot | None = None


def params(day: date, task: str) -> dict[str, int]:
    """The trigger form of a day's task: the first day reads all days since the opening."""
    return (
        {"lookback_days": (FIRST_DAY - OPENS).days}
        if day == FIRST_DAY and task == "extract_delta"
        else {}
    )


def database_connection(url: sa.URL, **changed: str | int | None) -> str:
    parts = {
        "login": url.username,
        "password": url.password,
        "host": url.host or url.query["host"],
        "port": url.port,
    }
    return json.dumps({"conn_type": "postgres", "schema": url.database, **parts, **changed})


def redis_connection(url: str, **changed: str | int) -> str:
    return json.dumps(
        {"conn_type": "redis", "host": "127.0.0.1", "port": sa.make_url(url).port, **changed}
    )


@contextmanager
def changed_shop(shop: sa.URL, change: str) -> Iterator[dict[str, str]]:
    """The connection of a copy of the shop's database with a change made to it."""
    copy = shop.set(database="faults_changed")
    with administration(shop) as server:
        server.exec_driver_sql(f"CREATE DATABASE {copy.database} TEMPLATE {shop.database}")
        try:
            with administration(copy) as tables:
                tables.exec_driver_sql(change)
            yield {"AIRFLOW_CONN_RECSYS_DB": database_connection(copy)}
        finally:
            server.exec_driver_sql(f"DROP DATABASE {copy.database}")


@contextmanager
def administration(url: sa.URL) -> Iterator[sa.Connection]:
    database = "postgres" if url.database == "faults" else url.database
    engine = sa.create_engine(
        url.set(database=database), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        yield connection
