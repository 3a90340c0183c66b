"""Reading a real PostgreSQL: rows as delivered, errors that say what to check."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from recsys_ops.errors import DataError, SourceError
from recsys_ops.source import catalogue, database


def make(url: str, *statements: str) -> sa.URL:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    return sa.make_url(url)


def test_rows_arrive_as_delivered_within_the_window(database_url: str) -> None:
    url = make(
        database_url,
        "CREATE TABLE events (id bigint, at timestamptz, note text, price numeric(10,2))",
        "INSERT INTO events VALUES (9007199254740993, '2026-01-01 23:30-01', 'x', 1.10)",
        "INSERT INTO events VALUES (2, '2026-01-02Z', NULL, NULL), (3, '2026-01-03Z', '', 0)",
    )
    window = {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 3, tzinfo=UTC)}
    frame = database.read(url, "SELECT * FROM events WHERE at >= :start AND at < :end ORDER BY at", window, timeout_s=5)
    assert frame["id"].to_list() == [2, 9007199254740993]
    assert frame["at"].to_list()[1] == datetime(2026, 1, 2, 0, 30, tzinfo=UTC)
    assert frame["price"].to_list() == [None, "1.10"]


def test_types_that_have_no_exact_like_arrive_as_the_database_writes_them(database_url: str) -> None:
    sql = """SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS id, '10.0.0.5'::inet AS ip, '{"a": 1}'::jsonb AS j, n
             FROM (VALUES (12345.5::numeric), (0.00000000000000000033::numeric), ('NaN'::numeric)) AS v(n)"""
    frame = database.read(sa.make_url(database_url), sql, {}, timeout_s=5)
    assert frame["n"].to_list() == ["12345.5", "0.00000000000000000033", "NaN"]
    assert frame.row(0)[:3] == ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "10.0.0.5", '{"a": 1}')


def test_more_rows_than_the_driver_holds_at_once_arrive_in_order(database_url: str) -> None:
    sql = "SELECT n, CASE WHEN n > 60000 THEN 'late' END AS note FROM generate_series(1, 120000) AS n ORDER BY n"
    frame = database.read(sa.make_url(database_url), sql, {}, timeout_s=30)
    assert frame["n"].to_list() == list(range(1, 120_001))
    assert frame["note"].null_count() == 60_000


def test_a_connection_of_an_unknown_type_says_so() -> None:
    with pytest.raises(SourceError, match="driver that is not installed"):
        database.read(database.url("oracle", host="db"), "SELECT 1", {}, timeout_s=5)


def test_an_empty_window_keeps_the_columns(database_url: str) -> None:
    url = make(database_url, "CREATE TABLE events (id bigint, at timestamptz)")
    assert database.read(url, "SELECT * FROM events", {}, timeout_s=5).columns == ["id", "at"]


def test_the_database_cannot_be_written_to(database_url: str) -> None:
    url = make(database_url, "CREATE SEQUENCE numbers")
    with pytest.raises(SourceError, match="read-only transaction"):
        database.read(url, "SELECT nextval('numbers')", {}, timeout_s=5)


def test_a_query_that_takes_too_long_is_cancelled(database_url: str) -> None:
    with pytest.raises(SourceError, match="statement timeout"):
        database.read(sa.make_url(database_url), "SELECT pg_sleep(30)", {}, timeout_s=1)


def test_a_missing_table_names_it_and_the_sql_folder(database_url: str) -> None:
    with pytest.raises(SourceError, match=r'relation "events" does not exist; check include/sql'):
        database.read(sa.make_url(database_url), "SELECT * FROM events", {}, timeout_s=5)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    url = database.url("postgres", username="shop", password="hunter2", host="127.0.0.1", port=1, database="shop")
    with pytest.raises(SourceError, match=r"'shop' on 127\.0\.0\.1 is away") as error:
        database.read(url, "SELECT 1", {}, timeout_s=5)
    assert "hunter2" not in str(error.value)


def test_the_catalogue_is_typed_and_only_what_can_be_sold_is_eligible(database_url: str) -> None:
    url = make(
        database_url,
        "CREATE TABLE products (item_id text, title text, category text, price numeric(10,2), stock integer, status text)",
        "INSERT INTO products VALUES ('c','C','x',1.5,3,'draft'), ('b','B','x',2.5,0,'published')",
        "INSERT INTO products VALUES ('a','A',NULL,9.9,1,'published')",
    )
    products = catalogue.canonical(database.read(url, "SELECT * FROM products", {}, timeout_s=5))
    assert products["item_id"].to_list() == ["a", "b", "c"]
    assert products["price"].to_list() == [9.9, 2.5, 1.5]
    assert catalogue.eligible(products)["item_id"].to_list() == ["a"]


def test_a_catalogue_with_an_item_twice_or_a_column_missing_is_refused(database_url: str) -> None:
    url = make(database_url, "CREATE TABLE p (item_id text)")
    with pytest.raises(DataError, match="delivers no title, category"):
        catalogue.canonical(database.read(url, "SELECT * FROM p", {}, timeout_s=5))
    twice = "SELECT 'a' item_id, 't' title, 'c' category, 1 price, 1 stock, 's' status UNION ALL SELECT 'a', 't', 'c', 1, 1, 's'"
    with pytest.raises(DataError, match="share an item_id"):
        catalogue.canonical(database.read(url, twice, {}, timeout_s=5))
