"""Days read in slices have the rows and types of one read."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from recsys_ops.errors import DataError, SourceError, StorageError
from recsys_ops.source.slices import extract_slices
from recsys_ops.source.url import sqlalchemy_url

DAY = date(2026, 1, 1)
SQL = "SELECT * FROM events WHERE recorded_at >= :start AND recorded_at < :end ORDER BY recorded_at"


def make(url: str | sa.URL, *statements: str) -> sa.URL:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    return sa.make_url(url)


def delivered(
    url: sa.URL,
    folder: Path,
    *,
    sql: str = SQL,
    hours: int = 1,
    days: tuple[date, ...] = (DAY,),
) -> pl.DataFrame:
    frame, rows = extract_slices(
        url, sql, days, hours=hours, connections=2, timeout_s=30, folder=folder
    )
    collected = frame.collect()
    assert collected.height == sum(rows.values())
    return collected


@pytest.fixture
def sqlite_url(tmp_path: Path) -> sa.URL:
    (tmp_path / "shop.db").touch()
    return sqlalchemy_url("sqlite", host=f"{tmp_path}/shop.db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slices").mkdir()
    return tmp_path / "slices"


@pytest.fixture
def full_day(database_url: str) -> sa.URL:
    """A shop with a row every ten minutes from two hours before the day to two hours after it."""
    return make(
        database_url,
        "CREATE TABLE events (recorded_at timestamptz, n int, note text)",
        """INSERT INTO events SELECT at, extract(epoch FROM at - '2026-01-01Z') / 600, NULL
           FROM generate_series('2025-12-31 22:00Z', '2026-01-02 02:00Z'::timestamptz,
                                interval '10 minutes') AS at""",
    )


@pytest.mark.parametrize("hours", [1, 5, 24])
def test_slices_together_lose_and_double_no_row_of_the_day(
    full_day: sa.URL, folder: Path, hours: int
) -> None:
    assert delivered(full_day, folder, hours=hours)["n"].to_list() == list(range(144))


def test_days_apart_are_read_and_counted_without_those_between(
    full_day: sa.URL, folder: Path
) -> None:
    days = [DAY - timedelta(days=1), DAY + timedelta(days=1), DAY + timedelta(days=3)]
    frame, rows = extract_slices(
        full_day, SQL, days, hours=5, connections=2, timeout_s=30, folder=folder
    )
    assert frame.collect()["n"].to_list() == [*range(-12, 0), *range(144, 157)]
    assert rows == dict(zip(days, (12, 13, 0), strict=True))


def test_a_row_on_the_bound_of_two_slices_comes_once(database_url: str, folder: Path) -> None:
    times = (
        "('2026-01-01 00:00Z'), ('2026-01-01 01:00Z'), ('2026-01-01 00:59:59.999999Z'), "
        "('2026-01-02 00:00Z')"
    )
    url = make(
        database_url,
        "CREATE TABLE events (recorded_at timestamptz)",
        f"INSERT INTO events VALUES {times}",
    )
    assert [f"{at:%H:%M}" for at in delivered(url, folder)["recorded_at"]] == [
        "00:00",
        "00:59",
        "01:00",
    ]


def test_a_day_without_rows_has_the_columns_with_their_types(
    full_day: sa.URL, folder: Path
) -> None:
    make(full_day, "DELETE FROM events")
    rows = delivered(full_day, folder)
    assert rows.is_empty()
    assert rows.schema == {
        "recorded_at": pl.Datetime("us", "UTC"),
        "n": pl.Int32(),
        "note": pl.String(),
    }


def test_a_column_that_only_one_slice_fills_keeps_its_values(
    sqlite_url: sa.URL, folder: Path
) -> None:
    url = make(
        sqlite_url,
        "CREATE TABLE events (recorded_at, user_id, price, big)",
        "INSERT INTO events VALUES ('2026-01-01 00:30:00', NULL, 1, 9007199254740993)",
        "INSERT INTO events VALUES ('2026-01-01 01:30:00', 'u7', 2.5, 0.5)",
        "INSERT INTO events VALUES ('2026-01-01 02:30:00', 7, NULL, NULL)",
    )
    rows = delivered(url, folder)
    assert rows["user_id"].to_list() == [None, "u7", "7"]
    assert rows["price"].to_list() == ["1", "2.5", None]
    assert rows["big"].to_list() == ["9007199254740993", "0.5", None]


def test_mariadb_delivers_a_day_in_slices_too(mariadb_url: sa.URL, folder: Path) -> None:
    url = make(
        mariadb_url,
        "SET time_zone = '+00:00'",
        "CREATE TABLE events (recorded_at timestamp(6), n int unsigned)",
        "INSERT INTO events SELECT '2025-12-31 22:00' + INTERVAL seq * 10 MINUTE, seq "
        "FROM seq_0_to_167",
    )
    assert delivered(url, folder, hours=7)["n"].to_list() == list(range(12, 156))


def test_a_query_without_the_time_of_recording_is_refused(full_day: sa.URL, folder: Path) -> None:
    with pytest.raises(DataError, match="no column recorded_at"):
        delivered(full_day, folder, sql=SQL.replace("*", "n"))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (":end", "now() -- :end", "does not name :end, so each slice would deliver"),
        ("WHERE recorded_at >= :start AND recorded_at < :end", "", "name :end and :start, so"),
    ],
)
def test_a_query_without_a_bound_is_refused(
    full_day: sa.URL, folder: Path, old: str, new: str, named: str
) -> None:
    with pytest.raises(DataError, match=named):
        delivered(full_day, folder, sql=SQL.replace(old, new))


def test_a_disk_too_small_for_the_slices_is_named(full_day: sa.URL, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write a slice to .*/gone"):
        delivered(full_day, tmp_path / "gone")


def test_a_slice_that_takes_too_long_ends_the_extract(full_day: sa.URL, folder: Path) -> None:
    slow = SQL.replace(
        "FROM events",
        "FROM events, "
        "(SELECT pg_sleep(CASE WHEN :start > '2026-01-01 03:30Z' THEN 9 ELSE 0 END)) AS s",
    )
    with pytest.raises(SourceError, match="statement timeout"):
        extract_slices(
            full_day,
            slow,
            [DAY],
            hours=1,
            connections=2,
            timeout_s=1,
            folder=folder,
        )
