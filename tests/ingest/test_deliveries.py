"""Generations of raw objects, and the days that a run has to read."""

from datetime import date, timedelta

import polars as pl
import pytest
from support.history_rows import events

from recsys_ops.errors import DataError
from recsys_ops.history.table import replace_days, rows_by_day
from recsys_ops.ingest.deliveries import (
    check_delivery,
    deliveries_of,
    last_deliveries,
    missing_days,
    write_delivery,
)
from recsys_ops.run_day import days_between
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation, generations
from recsys_ops.storage.objects import Storage

DAY = date(2026, 3, 10)


def ago(days: int) -> date:
    return DAY - timedelta(days=days)


def delivered(storage: Storage, run_day: date, rows: dict[date, int], run: str = "run") -> str:
    frame = pl.LazyFrame({"row_id": [f"{day}-{n}" for day in rows for n in range(rows[day])]})
    return write_delivery(storage, run_day, frame, rows, run)


def test_a_delivery_is_added_and_the_newest_is_current(storage: Storage) -> None:
    first = delivered(storage, DAY, {DAY: 3})
    whole = storage.get(first)
    second = delivered(storage, DAY, {DAY: 2})
    assert storage.get(first) == whole
    assert current_generation(storage, paths.RAW, DAY) == second
    assert [(found.number, found.rows[DAY]) for found in deliveries_of(storage, DAY)] == [
        (1, 3),
        (2, 2),
    ]


def test_the_same_task_twice_leaves_one_delivery(storage: Storage) -> None:
    first = delivered(storage, DAY, {DAY: 3})
    storage.put(first, b"half of it")  # also what a broken disk left is mended
    assert delivered(storage, DAY, {DAY: 3}) == first
    assert storage.read_parquet(first).height == 3
    delivered(storage, ago(1), {ago(1): 1, DAY: 3})
    assert delivered(storage, DAY, {DAY: 3}) != first


def test_two_runs_of_one_day_at_once_never_replace_each_others(storage: Storage) -> None:
    one, other = (delivered(storage, DAY, {DAY: 3}, run) for run in ("one", "other"))
    # as if both had looked for the largest number before either wrote
    storage.put(other.replace("000002", "000001"), storage.get(other))
    storage.delete(other)
    assert {found.run for found in deliveries_of(storage, DAY)} == {"one", "other"}
    assert storage.exists(one)


def test_of_equal_numbers_the_later_day_has_read_last(storage: Storage) -> None:
    early = delivered(storage, ago(1), {ago(1): 1})
    late = delivered(storage, DAY, {ago(1): 2, DAY: 1})
    storage.put(late.replace("000002", "000001"), storage.get(late))
    storage.delete(late)
    last, damaged = last_deliveries(storage, [ago(1), DAY])
    assert {found.run_day for found in last.values()} == {DAY}
    assert damaged == []
    assert storage.exists(early)


def test_foreign_files_are_no_deliveries(storage: Storage) -> None:
    path = delivered(storage, DAY, {DAY: 1})
    for foreign in (
        "raw/README.txt",
        f"raw/day={DAY}/.DS_Store",
        "raw/day=x/000009-00000000.parquet",
    ):
        storage.put(foreign, b"not ours")
    assert [found.path for found in generations(storage, paths.RAW)] == [path]
    assert current_generation(storage, paths.RAW, DAY) == path


def committed(storage: Storage, *days: date) -> None:
    for day in days:
        replace_days(storage, events(day, 2), day, day)


def test_missing_days_are_neither_in_the_history_nor_delivered_empty(
    storage: Storage,
) -> None:
    """Six nights without Airflow, a day that the shop was closed, one that was never committed."""
    days = days_between(ago(20), ago(1))
    assert missing_days(storage, days, rows_by_day(storage)) == []
    committed(storage, ago(15), ago(14), ago(12), *days_between(ago(5), ago(1)))
    delivered(storage, ago(13), {ago(13): 0})
    delivered(storage, ago(11), {ago(11): 4})
    history = rows_by_day(storage)
    assert history == dict.fromkeys([ago(15), ago(14), ago(12), *days_between(ago(5), ago(1))], 2)
    assert missing_days(storage, days, history) == days_between(ago(11), ago(6))


def test_a_purged_day_whose_raw_object_has_expired_is_refused_too(storage: Storage) -> None:
    committed(storage, ago(1))
    history = rows_by_day(storage)
    with pytest.raises(DataError, match="would have 0 of its 2 rows"):
        check_delivery(storage, {ago(1): 0}, history, 0.9, None)
    assert check_delivery(storage, {ago(1): 0}, history, 0.9, "cleared out") == "cleared out"
    # an event that has two rows in the history is one row of the database
    assert check_delivery(storage, {ago(1): 1}, history, 0.9, None) is None
