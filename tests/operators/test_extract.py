"""What a night may take away: deliveries and catalogues compared with those before."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from airflow.sdk.exceptions import AirflowFailException
from support.history_rows import events

from recsys_ops.history.table import replace_days
from recsys_ops.ingest.deliveries import deliveries_of
from recsys_ops.operators.extract_catalogue import ExtractCatalogueOperator
from recsys_ops.operators.extract_delta import ExtractDeltaOperator
from recsys_ops.run_day import days_between
from recsys_ops.settings import Settings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage

DAY = date(2026, 3, 10)
OPENS = DAY - timedelta(days=13)
EVENTS = "SELECT * FROM events WHERE recorded_at >= :start AND recorded_at < :end"
LOCAL = EVENTS.replace(":start", "CONVERT_TZ(:start, 'UTC', 'Europe/Berlin')")
CATALOGUE = "SELECT * FROM products"

Change = Callable[..., None]


def day(ago: int) -> date:
    return DAY - timedelta(days=ago)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage.root)


@pytest.fixture
def shop(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Changes a shop with 20 rows a day and 30 items in PostgreSQL."""
    change = connected(sa.make_url(database_url), "postgres", monkeypatch)
    change(
        "CREATE TABLE events (n int, recorded_at timestamptz)",
        f"""INSERT INTO events SELECT n, timestamptz '{OPENS} 00:30Z' + n * interval '72 minutes'
            FROM generate_series(0, {20 * 14 - 1}) AS n""",
        """CREATE TABLE products AS SELECT 'p' || n AS item_id, 'a thing' AS title,
           'home' AS category, 1.5 AS price, 3 AS stock, 'published' AS status
           FROM generate_series(1, 30) AS n""",
    )
    return change


def connected(url: sa.URL, kind: str, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Names a server in Airflow's connection; returns what executes statements on it."""
    fields = {
        "conn_type": kind,
        "login": url.username,
        "password": url.password,
        "host": url.host or url.query.get("host") or url.query.get("unix_socket"),
        "port": url.port,
        "schema": url.database,
    }
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_DB", json.dumps(fields))

    def change(*statements: str) -> None:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    return change


def context(run_type: str = "scheduled", **params: Any) -> Any:
    after = datetime(2026, 3, 12, 2, tzinfo=UTC)
    dag_run = SimpleNamespace(
        run_id=f"{run_type}__x",
        run_type=run_type,
        logical_date=after,
        run_after=after,
        triggering_user_name="anna",
    )
    return {"dag_run": dag_run, "params": params}


def extract(
    of: date = DAY, *, sql: str = EVENTS, run_type: str = "scheduled", **params: Any
) -> dict[str, Any]:
    operator = ExtractDeltaOperator(task_id="extract_delta", sql="extract_events.sql", day=str(of))
    operator.sql = sql  # as rendered
    return operator.execute(context(run_type, **params))


def catalogue(of: date = DAY, **params: Any) -> dict[str, Any]:
    operator = ExtractCatalogueOperator(
        task_id="extract_catalogue", sql="extract_catalogue.sql", day=str(of)
    )
    operator.sql = CATALOGUE
    return operator.execute(context(**params))


def rows_of(storage: Storage, of: date) -> list[int]:
    return [delivery.rows[of] for delivery in deliveries_of(storage, of)]


PURGED = f"DELETE FROM events WHERE recorded_at < '{DAY}Z'"


@pytest.mark.parametrize(
    ("run_type", "change", "left"),
    [
        ("scheduled", "DELETE FROM events", 0),
        ("scheduled", PURGED, 0),
        ("backfill", PURGED, 0),
        ("scheduled", "DELETE FROM events WHERE mod(n, 10) <> 0", 2),
        ("scheduled", "DELETE FROM events WHERE mod(n, 6) = 0", 16),
    ],
    ids=["emptied", "purged", "backfill of a purged day", "nine tenths", "a sixth"],
)
def test_lost_rows_are_refused_until_a_person_says_why(
    storage: Storage, shop: Change, change: str, left: int, run_type: str
) -> None:
    lost, others = day(1), {day(2), day(3)} if run_type == "scheduled" else set()
    assert extract(lost)["rows"] == 80
    shop(change)
    with pytest.raises(AirflowFailException, match=f"{lost} would have {left} of its 20 rows"):
        extract(lost, run_type=run_type)
    assert rows_of(storage, lost) == [20]
    figures = extract(lost, run_type=run_type, accept_reason="old orders archived")
    assert figures["accepted"] == "old orders archived (anna)"
    assert rows_of(storage, lost) == [20, left]
    assert [len(rows_of(storage, other)) for other in others] == [2] * len(others)
    newest = deliveries_of(storage, lost)[-1]
    assert (newest.run, newest.accepted) == (f"{run_type}__x", "old orders archived (anna)")
    # what was accepted is what the next run compares with
    assert extract(lost, run_type=run_type)["accepted"] is None


def test_few_rows_that_a_shop_deletes_late_need_no_reason(shop: Change) -> None:
    extract()
    shop("DELETE FROM events WHERE mod(n, 20) = 0")
    assert extract()["accepted"] is None


def test_a_server_without_zone_tables_takes_no_day_away(
    storage: Storage, mariadb_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONVERT_TZ answers NULL there, so the query finds nothing."""
    change = connected(mariadb_url, "mysql", monkeypatch)
    change(
        "CREATE TABLE events (n int, recorded_at datetime(6))",
        f"INSERT INTO events SELECT seq, '{DAY} 12:00:00' FROM seq_1_to_50",
    )
    with pytest.raises(AirflowFailException, match="no rows were found, days read: 1"):
        extract(sql=LOCAL, lookback_days=0)
    assert storage.list("raw") == []
    assert extract(lookback_days=0)["rows"] == 50
    with pytest.raises(AirflowFailException, match=f"{DAY} would have 0 of its 50 rows"):
        extract(sql=LOCAL, lookback_days=0)
    assert rows_of(storage, DAY) == [50]


def test_six_nights_that_airflow_was_down_are_read_by_the_next_run(
    storage: Storage, shop: Change, caplog: pytest.LogCaptureFixture
) -> None:
    last_night = day(7)
    extract(last_night, lookback_days=6)
    replace_days(
        storage,
        pl.concat([events(of, 20) for of in days_between(OPENS, last_night)]),
        OPENS,
        last_night,
    )
    figures = extract()
    missed = days_between(day(6), day(4))
    assert figures["caught_up"] == [str(of) for of in missed]
    assert figures["rows"] == 20 * 7
    assert f"days that the history lacks: {day(6)} … {day(4)}" in caplog.text
    assert [rows_of(storage, of) for of in missed] == [[20]] * 3
    for told in ({"run_type": "backfill"}, {"lookback_days": 0}):
        figures = extract(**told)
        assert (figures["caught_up"], figures["rows"]) == ([], 20)


def test_days_apart_are_caught_up_alone(storage: Storage, shop: Change) -> None:
    held = [of for of in days_between(OPENS, DAY) if of not in (day(6), day(9), day(10))]
    for of in held:
        replace_days(storage, events(of, 20), of, of)
    figures = extract()
    assert figures["caught_up"] == [str(day(ago)) for ago in (10, 9, 6)]
    assert figures["rows"] == 20 * 7


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ("DELETE FROM products WHERE item_id > 'p2'", 18),
        ("UPDATE products SET item_id = item_id || '.0'", 30),
    ],
)
def test_a_catalogue_that_lost_items_is_refused_until_a_person_says_why(
    storage: Storage, shop: Change, change: str, gone: int
) -> None:
    assert catalogue(day(1))["items"] == 30
    shop(change)
    with pytest.raises(AirflowFailException, match=f"lacks {gone} of the 30 items that it had"):
        catalogue()
    assert storage.list(paths.of_day(paths.CATALOGUE, DAY)) == []
    assert catalogue(accept_reason="new range")["accepted"] == "new range (anna)"
    assert catalogue()["accepted"] is None


def test_an_empty_catalogue_is_refused_and_the_one_before_stays(
    storage: Storage, shop: Change
) -> None:
    catalogue()
    before = storage.list(paths.CATALOGUE)
    shop("DELETE FROM products")
    with pytest.raises(AirflowFailException, match="none of 0 catalogue items"):
        catalogue(accept_reason="no reason is enough")
    assert storage.list(paths.CATALOGUE) == before


def test_a_catalogue_of_a_day_is_added_and_the_newest_is_read(
    storage: Storage, shop: Change
) -> None:
    catalogue()
    catalogue()
    assert len(storage.list(paths.CATALOGUE)) == 1
    shop(
        "INSERT INTO products SELECT 'p31', title, category, price, stock, status FROM products "
        "LIMIT 1"
    )
    catalogue()
    first, second = storage.list(paths.CATALOGUE)
    assert current_generation(storage, paths.CATALOGUE, DAY) == second
    assert (storage.read_parquet(first).height, storage.read_parquet(second).height) == (30, 31)
