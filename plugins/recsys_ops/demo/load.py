"""Puts the demo shop into PostgreSQL, one day at a time, as the days of a real shop come."""

from datetime import date, timedelta

import polars as pl
import psycopg
import sqlalchemy as sa

from recsys_ops.demo.events import COLUMNS, TRUTH, day_events
from recsys_ops.demo.shop import Shop, products, users


def create_schema(engine: sa.Engine) -> None:
    """Make the tables of an empty shop, and `truth.lines`, which no pipeline reads.

    Existing tables are dropped.
    """
    with engine.begin() as connection:
        connection.exec_driver_sql(_SCHEMA)


def load_day(engine: sa.Engine, shop: Shop, day: date) -> int:
    """Add the rows that become visible on a day; returns the number of rows added to `events`.

    These are the rows recorded on the day without its late ones, and the late rows of the two days
    before. Users and products are updated. A day can be loaded once; load the days in order.
    """
    # a row is at most two days late; nothing was recorded before the opening
    recorded = [
        day - timedelta(days=late) for late in (2, 1) if day - timedelta(days=late) >= shop.opens
    ] + [day]
    rows = pl.concat(day_events(shop, past).filter(visible_on=day) for past in recorded)
    with engine.begin() as connection:
        driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        with driver.cursor() as cursor:
            _upsert(cursor, "users", "user_id", users(shop, day))
            _upsert(cursor, "products", "product_id", products(shop, day))
            _copy(cursor, "events", rows.select(COLUMNS))
            _copy(cursor, "truth.lines", rows.select("line_id", *TRUTH))
    return len(rows)


_SCHEMA = """
DROP SCHEMA IF EXISTS truth CASCADE;
DROP TABLE IF EXISTS events, products, users;
CREATE TABLE events (
    line_id bigserial PRIMARY KEY, recorded_at timestamptz NOT NULL, event_id text, event_time text,
    user_id text, customer_ref text, product_id text, sku text, action text, quantity text,
    price text, user_agent text, ip text, app_version text);
CREATE INDEX ON events (recorded_at);
CREATE TABLE products (
    product_id text PRIMARY KEY, title text, category text, price numeric(10, 2), stock integer,
    status text);
CREATE TABLE users (user_id text PRIMARY KEY, email text, role text, created_at timestamptz);
CREATE SCHEMA truth;
CREATE TABLE truth.lines (line_id bigint PRIMARY KEY, label text, detail text, visible_on date);
"""


def _copy(cursor: psycopg.Cursor, table: str, frame: pl.DataFrame) -> None:
    with cursor.copy(
        f"COPY {table} ({', '.join(frame.columns)}) FROM STDIN (FORMAT csv, NULL '\\N')"
    ) as copy:
        copy.write(frame.write_csv(include_header=False, null_value="\\N"))


def _upsert(cursor: psycopg.Cursor, table: str, key: str, frame: pl.DataFrame) -> None:
    changes = ", ".join(
        f"{column} = excluded.{column}" for column in frame.columns if column != key
    )
    cursor.execute(f"CREATE TEMPORARY TABLE incoming (LIKE {table}) ON COMMIT DROP")
    _copy(cursor, "incoming", frame)
    cursor.execute(
        f"INSERT INTO {table} SELECT * FROM incoming "  # noqa: S608
        f"ON CONFLICT ({key}) DO UPDATE SET {changes}"
    )
    cursor.execute("DROP TABLE incoming")
