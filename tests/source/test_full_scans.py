"""A query that reads a whole large table is noticed, and the missing index is named."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from recsys_ops.source.full_scans import FullScan, full_scans
from recsys_ops.source.url import sqlalchemy_url

WINDOW = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2026, 1, 1, 1, tzinfo=UTC)}
SQL = """-- the events
SELECT e.*, u.role FROM events AS e LEFT JOIN users u ON u.user_id = e.user_id
WHERE e.recorded_at >= :start AND e.recorded_at < :end ORDER BY e.recorded_at"""
ROWS = 150_000
FILL = {
    "postgresql": "INSERT INTO events SELECT timestamp '2026-01-01' + n * interval '1s', n "
    "FROM generate_series(1, 150000) n",
    "mariadb": "INSERT INTO events SELECT '2026-01-01' + INTERVAL seq SECOND, seq "
    "FROM seq_1_to_150000",
    "sqlite": """WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 150000)
                 INSERT INTO events SELECT datetime('2026-01-01', n || ' seconds'), n FROM c""",
}


@pytest.fixture(params=FILL)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    """A shop on each database, with 150,000 events and no index on their time."""
    (tmp_path / "shop.db").touch()
    url = {
        "postgresql": lambda: sa.make_url(request.getfixturevalue("database_url")),
        "mariadb": lambda: request.getfixturevalue("mariadb_url"),
        "sqlite": lambda: sqlalchemy_url("sqlite", host=f"{tmp_path}/shop.db"),
    }[request.param]()
    execute(
        url,
        "CREATE TABLE events (recorded_at timestamp, user_id int)",
        "CREATE TABLE users (user_id int PRIMARY KEY, role varchar(9))",
        FILL[request.param],
        *{"postgresql": ["ANALYZE"], "mariadb": ["ANALYZE TABLE events"], "sqlite": []}[
            request.param
        ],
    )
    return url


def execute(url: sa.URL, *statements: str) -> None:
    with sa.create_engine(
        url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
    ).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def scans(url: sa.URL, sql: str = SQL) -> list[FullScan]:
    return full_scans(url, sql, WINDOW, timeout_s=10)


def test_a_missing_index_is_noticed_and_the_advice_cures_it(shop: sa.URL) -> None:
    (scan,) = scans(shop)
    assert scan.table == "events"
    assert scan.rows == pytest.approx(ROWS, rel=0.1)
    execute(shop, scan.advice)
    assert scans(shop) == []


def test_a_small_table_may_be_read_whole(shop: sa.URL) -> None:
    execute(shop, "DELETE FROM events WHERE user_id > 1000")
    execute(
        shop,
        *{"postgresql": ["ANALYZE"], "mariadb": ["ANALYZE TABLE events"], "sqlite": []}[
            shop.get_backend_name()
        ],
    )
    assert scans(shop) == []


def test_a_query_that_cannot_be_explained_gets_no_advice_and_no_error(shop: sa.URL) -> None:
    assert scans(shop, "SELECT * FROM nowhere WHERE recorded_at >= :start") == []
    assert scans(sqlalchemy_url("postgres", host="127.0.0.1", port=1, database="shop")) == []
