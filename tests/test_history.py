"""The history table: days are replaced whole, at once or not at all."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys_ops import history
from recsys_ops.errors import DataError, StorageError
from recsys_ops.storage import Storage

FIRST = date(2026, 1, 1)


def events(day: date, count: int) -> pl.DataFrame:
    at = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
    frame = pl.DataFrame({"event_id": [f"{day}-{n}" for n in range(count)]})
    return frame.with_columns(
        recorded_at=pl.lit(at), event_time=pl.lit(at), user_id=pl.lit("u"), item_id=pl.lit("i"), event_type=pl.lit("view"),
        quantity=pl.lit(1), value=pl.lit(None), ip=pl.lit("192.0.2.1"),
    )  # fmt: skip


def counts(storage: Storage) -> dict[date, int]:
    frame = history.read(storage, FIRST, date(2026, 12, 31), version=history.version(storage))
    return dict(frame.group_by("day").len().sort("day").iter_rows())


def test_a_day_committed_twice_holds_its_rows_once(storage: Storage) -> None:
    for _ in range(2):
        history.replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    assert counts(storage) == {FIRST: 3}


def test_a_lookback_run_replaces_all_the_days_it_read_and_no_other(storage: Storage) -> None:
    second, third = FIRST + timedelta(1), FIRST + timedelta(2)
    for day in (FIRST, second, third):
        history.replace_days(storage, events(day, 2), day, day)
    history.replace_days(storage, pl.concat([events(second, 5)]), second, third)
    assert counts(storage) == {FIRST: 2, second: 5}


def test_an_empty_day_empties_its_partition(storage: Storage) -> None:
    history.replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    history.replace_days(storage, events(FIRST, 0), FIRST, FIRST)
    assert counts(storage) == {}


def test_personal_data_do_not_reach_history(storage: Storage) -> None:
    version = history.replace_days(storage, events(FIRST, 1), FIRST, FIRST)
    assert history.read(storage, FIRST, FIRST, version=version).columns == list(history.SCHEMA)


def test_a_row_corrected_on_a_later_day_is_read_once_when_the_days_were_ingested_apart(storage: Storage) -> None:
    second = FIRST + timedelta(1)
    corrected = events(second, 1).with_columns(event_id=pl.lit(f"{FIRST}-0"), quantity=pl.lit(3))
    history.replace_days(storage, corrected, second, second)
    version = history.replace_days(storage, events(FIRST, 2), FIRST, FIRST)
    rows = history.read(storage, FIRST, second, version=version, columns=["event_id", "quantity"])
    assert sorted(rows.rows()) == [(f"{FIRST}-0", 3), (f"{FIRST}-1", 1)]


def test_a_pinned_version_stays_readable_after_the_day_was_replaced(storage: Storage) -> None:
    version = history.replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    history.replace_days(storage, events(FIRST, 1), FIRST, FIRST)
    assert history.read(storage, FIRST, FIRST, version=version).height == 3


def test_events_outside_the_days_are_refused(storage: Storage) -> None:
    with pytest.raises(DataError, match="outside"):
        history.replace_days(storage, events(FIRST, 1), FIRST + timedelta(1), FIRST + timedelta(1))


def test_a_missing_history_says_what_to_run(storage: Storage) -> None:
    with pytest.raises(StorageError, match="run recsys_ingest"):
        history.version(storage)


def commit(root: str, day: date, count: int) -> int:
    return history.replace_days(Storage(root), events(day, count), day, day)


def test_four_days_can_be_committed_at_once(tmp_path: Path) -> None:
    days = [FIRST + timedelta(n) for n in range(8)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(commit, [f"file://{tmp_path}"] * 8, days, range(1, 9)))
    assert counts(Storage(f"file://{tmp_path}")) == dict(zip(days, range(1, 9), strict=True))


def test_a_killed_writer_leaves_the_old_day_and_can_run_again(storage: Storage) -> None:
    commit(storage.root, FIRST, 3)
    for delay in (0.9, 1.1, 1.3, 1.5):
        writer = multiprocessing.get_context("spawn").Process(target=commit, args=(storage.root, FIRST, 100_000))
        writer.start()
        time.sleep(delay)
        writer.kill()
        writer.join()
        assert counts(storage)[FIRST] in (3, 100_000)
    commit(storage.root, FIRST, 7)
    assert counts(storage) == {FIRST: 7}
