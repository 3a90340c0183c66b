"""The demo shop in a real PostgreSQL."""

from collections.abc import Iterator
from datetime import date, timedelta

import polars as pl
import pytest
import sqlalchemy as sa

from recsys_ops.demo.events import day_events
from recsys_ops.demo.load import create_schema, load_day
from recsys_ops.demo.shop import TINY, Dirt, Shop, users

OPENS = date(2026, 5, 1)
SHOP = Shop(TINY, OPENS, dirt=Dirt(late=0.2))


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    create_schema(engine)
    yield engine
    engine.dispose()


def count(engine: sa.Engine, sql: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(sql)) or 0)


def test_late_rows_are_not_in_the_database_before_their_day(engine: sa.Engine) -> None:
    first = day_events(SHOP, OPENS)
    on_first_day = (
        f"SELECT count(*) FROM events WHERE recorded_at < '{OPENS + timedelta(days=1)} 00:00+00'"
    )
    seen = []
    for days in range(3):
        load_day(engine, SHOP, OPENS + timedelta(days=days))
        seen.append(count(engine, on_first_day))
    arrived = [
        len(first.filter(pl.col("visible_on") <= OPENS + timedelta(days=days))) for days in range(3)
    ]
    assert seen == arrived
    assert seen[0] < seen[1] < seen[2] == len(first)


def test_every_event_has_its_truth_and_the_days_people_and_products(
    engine: sa.Engine,
) -> None:
    later = OPENS + timedelta(days=1)
    assert load_day(engine, SHOP, OPENS) + load_day(engine, SHOP, later) == count(
        engine, "SELECT count(*) FROM events"
    )
    assert (
        count(
            engine,
            "SELECT count(*) FROM events FULL JOIN truth.lines USING (line_id) WHERE label IS NULL",
        )
        == 0
    )
    assert count(engine, "SELECT count(*) FROM truth.lines") == count(
        engine, "SELECT count(*) FROM events"
    )
    assert count(engine, "SELECT count(*) FROM users") == len(users(SHOP, later))
    assert (
        count(engine, "SELECT count(*) FROM products WHERE stock > 0 AND status = 'published'")
        > 100
    )


def test_values_arrive_as_the_clients_sent_them(engine: sa.Engine) -> None:
    load_day(engine, SHOP, OPENS)
    sent = day_events(SHOP, OPENS).filter(visible_on=OPENS).drop("label", "detail", "visible_on")
    with engine.connect() as connection:
        stored = connection.execute(
            sa.text(f"SELECT {', '.join(sent.columns)} FROM events ORDER BY line_id")
        ).fetchall()
    assert [tuple(row) for row in stored] == sent.rows()


def test_schema_made_again_is_empty(engine: sa.Engine) -> None:
    load_day(engine, SHOP, OPENS)
    create_schema(engine)
    assert (
        count(engine, "SELECT count(*) FROM events")
        == count(engine, "SELECT count(*) FROM truth.lines")
        == 0
    )
    assert load_day(engine, SHOP, OPENS) > 0
