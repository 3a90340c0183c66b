"""The history table: days are replaced atomically."""

import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType
from support.history_rows import FIRST, SUNDAY, counts, events

from recsys_ops.errors import DataError, StorageError
from recsys_ops.history.table import (
    SCHEMA,
    apply_retention,
    current_version,
    history_status,
    read_events,
    replace_days,
)
from recsys_ops.settings import HistorySettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

# children are forked from a process that has imported all modules and started no thread
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "recsys_ops.history.table"])


def test_a_day_committed_twice_holds_its_rows_once(storage: Storage) -> None:
    for _ in range(2):
        replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    assert counts(storage) == {FIRST: 3}


def test_a_lookback_run_replaces_all_the_days_it_read_and_no_other(storage: Storage) -> None:
    second, third = FIRST + timedelta(1), FIRST + timedelta(2)
    for day in (FIRST, second, third):
        replace_days(storage, events(day, 2), day, day)
    replace_days(storage, pl.concat([events(second, 5)]), second, third)
    assert counts(storage) == {FIRST: 2, second: 5}


def test_an_empty_day_empties_its_partition(storage: Storage) -> None:
    replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    replace_days(storage, events(FIRST, 0), FIRST, FIRST)
    assert counts(storage) == {}


def test_personal_data_do_not_reach_history(storage: Storage) -> None:
    version = replace_days(storage, events(FIRST, 1), FIRST, FIRST)
    assert read_events(storage, FIRST, FIRST, version=version).columns == list(SCHEMA)


def test_a_row_corrected_on_a_later_day_is_read_once(
    storage: Storage,
) -> None:
    second = FIRST + timedelta(1)
    corrected = events(second, 1).with_columns(event_id=pl.lit(f"{FIRST}-0"), quantity=pl.lit(3))
    replace_days(storage, corrected, second, second)
    version = replace_days(storage, events(FIRST, 2), FIRST, FIRST)
    rows = read_events(storage, FIRST, second, version=version, columns=["event_id", "quantity"])
    assert sorted(rows.rows()) == [(f"{FIRST}-0", 3), (f"{FIRST}-1", 1)]


def test_a_pinned_version_stays_readable_after_the_day_was_replaced(storage: Storage) -> None:
    version = replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    replace_days(storage, events(FIRST, 1), FIRST, FIRST)
    assert read_events(storage, FIRST, FIRST, version=version).height == 3


def test_events_outside_the_days_are_refused(storage: Storage) -> None:
    with pytest.raises(DataError, match="outside"):
        replace_days(storage, events(FIRST, 1), FIRST + timedelta(1), FIRST + timedelta(1))


def test_without_a_history_the_error_says_what_to_run(storage: Storage) -> None:
    with pytest.raises(StorageError, match="run recsys_ingest"):
        current_version(storage)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("quantity", 0),
        ("value", -0.01),
        ("value", float("nan")),
        ("event_type", "login"),
        ("user_id", None),
        ("quantity", None),
    ],
)
def test_a_row_that_breaks_a_constraint_is_refused_and_not_shown(
    storage: Storage, column: str, value: Any
) -> None:
    replace_days(storage, events(FIRST, 2), FIRST, FIRST)
    wrong = events(FIRST, 3).with_columns(pl.lit(value).alias(column), event_id=pl.lit("secret"))
    with pytest.raises(DataError, match="quantity > 0") as refused:
        replace_days(storage, wrong, FIRST, FIRST)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert counts(storage) == {FIRST: 2}


def test_a_quantity_may_be_a_fraction(storage: Storage) -> None:
    rows = events(FIRST, 2).with_columns(quantity=pl.lit(0.15))
    version = replace_days(storage, rows, FIRST, FIRST)
    assert read_events(storage, FIRST, FIRST, version=version)["quantity"].to_list() == [0.15, 0.15]


def make_table_of_an_earlier_release(storage: Storage, days: int) -> None:
    """Its quantities are whole numbers; each day has three rows."""
    table = DeltaTable.create(
        storage.url(paths.HISTORY),
        Schema(
            [
                Field(
                    name,
                    PrimitiveType("long") if name == "quantity" else field.type,
                    nullable=name == "value",
                )
                for name, field in zip(
                    SCHEMA, Schema.from_arrow(pl.Schema(SCHEMA)).fields, strict=True
                )
            ]
        ),
        partition_by=["day"],
        configuration={"delta.checkpointInterval": "10"},
        storage_options=storage.options,
    )
    table.alter.add_constraint(
        {
            "event_type_is_known": "event_type IN ('view', 'purchase')",
            "quantity_is_positive": "quantity >= 1",
        }
    )
    rows = pl.concat(events(FIRST + timedelta(n), 3) for n in range(days))
    rows = rows.with_columns(day=pl.col("event_time").dt.date(), quantity=pl.lit(2))
    write_deltalake(table, rows.select(*SCHEMA).cast({"value": pl.Float64}), mode="append")


def test_a_history_of_an_earlier_release_takes_fractions_too(
    storage: Storage,
) -> None:
    make_table_of_an_earlier_release(storage, days=3)
    before = current_version(storage)
    rows = events(FIRST, 2).with_columns(quantity=pl.lit(0.15))
    version = replace_days(storage, rows, FIRST, FIRST)
    second, third = FIRST + timedelta(1), FIRST + timedelta(2)
    read = read_events(storage, FIRST, third, version=version)
    assert read["quantity"].to_list() == [0.15] * 2 + [2.0] * 6
    assert dict(read.group_by("day").len().iter_rows()) == {FIRST: 2, second: 3, third: 3}
    assert read_events(storage, FIRST, third, version=before).height == 9
    for column, value in (("user_id", None), ("quantity", 0.0), ("value", -1.0)):
        wrong = events(FIRST, 1).with_columns(pl.lit(value).alias(column))
        with pytest.raises(DataError, match="quantity > 0"):
            replace_days(storage, wrong, FIRST, FIRST)
    table = DeltaTable(storage.url(paths.HISTORY), storage_options=storage.options)
    assert table.metadata().partition_columns == ["day"]
    converted = version
    assert replace_days(storage, rows, FIRST, FIRST) == converted + 1


def test_four_runs_at_once_convert_a_history_of_an_earlier_release(storage: Storage) -> None:
    make_table_of_an_earlier_release(storage, days=5)
    days = [FIRST + timedelta(n) for n in range(4)]
    commit_at_once(storage, days, [4, 5, 6, 7])
    assert counts(storage) == dict(zip([*days, FIRST + timedelta(4)], [4, 5, 6, 7, 3], strict=True))


def test_the_table_says_which_run_and_which_contract_wrote_last(storage: Storage) -> None:
    metadata = {"run": "scheduled__1", "contract_version": "3", "is_bot": "0.8.7"}
    version = replace_days(storage, events(FIRST, 3), FIRST, FIRST, metadata=metadata)
    last = history_status(storage, FIRST).last
    assert last is not None
    assert (last.version, last.metadata) == (version, metadata)


def test_status_ignores_commits_of_other_programs(storage: Storage) -> None:
    version = replace_days(
        storage, events(FIRST, 3), FIRST, FIRST, metadata={"run": "scheduled__1"}
    )
    table = DeltaTable(storage.url(paths.HISTORY), storage_options=storage.options)
    table.delete(
        "quantity > 9",
        commit_properties=CommitProperties(custom_metadata={"userMetadata": "by hand"}),
    )
    last = history_status(storage, FIRST).last
    assert last is not None
    assert (last.version, last.metadata) == (version, {"run": "scheduled__1"})


def test_status_shows_missing_days_and_medians_without_reading_data(
    storage: Storage,
) -> None:
    for number, count in [(0, 4), (1, 6), (2, 8), (4, 3)]:
        day = FIRST + timedelta(number)
        replace_days(storage, events(day, count), day, day)
    for path in storage.list(paths.HISTORY):
        if path.endswith(".parquet"):
            storage.delete(path)
    status = history_status(storage, FIRST + timedelta(5))
    assert status.missing == [FIRST + timedelta(3), FIRST + timedelta(5)]
    assert status.days["rows"].to_list() == [4, 6, 8, None, 3, None]
    assert status.days["of_median"].to_list() == [None, 1.5, 1.6, None, 0.5, None]


def test_days_beyond_the_retention_are_dropped_and_the_others_stay(storage: Storage) -> None:
    days = [SUNDAY - timedelta(number) for number in (12, 11, 10, 0)]
    for day in days:
        replace_days(storage, events(day, 2), day, day)
    friday = SUNDAY - timedelta(2)
    assert apply_retention(storage, friday, HistorySettings(retention_days=9)) == {
        "days_dropped": 1
    }
    assert list(counts(storage, days[0])) == days[1:]
    assert apply_retention(storage, friday, HistorySettings(retention_days=9)) == {
        "days_dropped": 0
    }


def test_most_of_a_history_is_not_dropped_without_a_reason(storage: Storage) -> None:
    days = [SUNDAY - timedelta(number) for number in range(100, 67, -1)]
    replace_days(storage, pl.concat(events(day, 1) for day in days), days[0], days[-1])
    before, settings = history_status(storage, SUNDAY).days, HistorySettings(retention_days=9)
    with pytest.raises(DataError, match="would delete 33 days of the history"):
        apply_retention(storage, SUNDAY, settings)
    assert history_status(storage, SUNDAY).days.equals(before)
    assert apply_retention(storage, SUNDAY, settings, "less is enough")["days_dropped"] == 33


def test_a_sunday_compacts_small_files_and_keeps_pinned_versions(
    storage: Storage,
) -> None:
    version = replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    rows = read_events(storage, FIRST, FIRST, version=version)
    for _ in range(2):
        write_deltalake(
            storage.url(paths.HISTORY),
            rows.with_columns(
                pl.format("{}-{}", "event_id", pl.lit(random.random())), day=pl.lit(FIRST)
            ),
            mode="append",
            storage_options=storage.options,
        )
    assert apply_retention(storage, SUNDAY, HistorySettings()) == {
        "days_dropped": 0,
        "files_compacted": 3,
        "files_removed": 0,
    }
    assert counts(storage) == {FIRST: 9}
    assert read_events(storage, FIRST, FIRST, version=version).equals(rows)


def test_files_of_a_killed_writer_are_removed_after_a_week(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    replace_days(storage, events(FIRST, 3), FIRST, FIRST)
    folder = tmp_path / paths.HISTORY / f"day={FIRST}"
    old, young = folder / "part-old.parquet", folder / "part-young.parquet"
    for file, age in ((old, 8), (young, 6)):
        file.write_bytes(b"half a fi")
        os.utime(file, (time.time() - age * 86_400,) * 2)
    assert apply_retention(storage, SUNDAY, HistorySettings())["files_removed"] == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_the_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    for _ in range(35):
        replace_days(storage, events(FIRST, 1), FIRST, FIRST)
    log = tmp_path / paths.HISTORY / "_delta_log"
    for file in log.iterdir():
        os.utime(file, (time.time() - 40 * 86_400,) * 2)
    apply_retention(storage, SUNDAY, HistorySettings())
    assert len(list(log.iterdir())) < 10
    assert counts(storage) == {FIRST: 1}


def commit(root: str, account: dict[str, str], day: date, count: int, start: float = 0) -> int:
    time.sleep(max(0, start - time.time()))
    return replace_days(Storage(root, account), events(day, count), day, day)


def commit_at_once(storage: Storage, days: list[date], row_counts: list[int]) -> None:
    """Four processes that begin their first commits at the same time."""
    many = len(days)
    start = time.time() + 1.5
    with ProcessPoolExecutor(4, mp_context=PROCESSES) as pool:
        list(
            pool.map(
                commit,
                [storage.root] * many,
                [storage.account] * many,
                days,
                row_counts,
                [start] * many,
            )
        )


def test_four_days_can_be_committed_at_once(storage: Storage) -> None:
    days = [FIRST + timedelta(n) for n in range(8)]
    commit_at_once(storage, days, list(range(1, 9)))
    assert counts(storage) == dict(zip(days, range(1, 9), strict=True))


def test_a_day_committed_by_several_runs_at_once_holds_one_of_them(
    storage: Storage,
) -> None:
    commit_at_once(storage, [FIRST] * 8, [500, 501] * 4)
    assert counts(storage)[FIRST] in (500, 501)
    commit_at_once(storage, [FIRST] * 8, [700] * 8)
    rows = read_events(storage, FIRST, FIRST, version=current_version(storage))
    assert sorted(rows["event_id"]) == sorted(events(FIRST, 700)["event_id"])


def test_a_killed_commit_leaves_the_old_or_new_day_and_can_run_again(
    storage: Storage,
) -> None:
    second = FIRST + timedelta(1)
    for day in (FIRST, second):
        commit(storage.root, storage.account, day, 3)
    chance, killed, seconds = random.Random(1), 0, 2.0
    for number in range(20):
        count = 20_000 + number
        before = counts(storage)
        writer = PROCESSES.Process(
            target=commit, args=(storage.root, storage.account, FIRST, count)
        )
        writer.start()
        begun = time.monotonic()
        writer.join(None if number == 0 else chance.random() * seconds)
        seconds = time.monotonic() - begun if number == 0 else seconds
        writer.kill()
        writer.join()
        killed += writer.exitcode != 0
        assert counts(storage) in (before, {FIRST: count, second: 3})
    assert killed >= 5, "too few kills came before the commit's end to prove anything"
    commit(storage.root, storage.account, FIRST, 7)
    rows = read_events(storage, FIRST, second, version=current_version(storage))
    undisturbed = Storage(f"{storage.root}/undisturbed", storage.account)
    for day, count in ((FIRST, 7), (second, 3)):
        commit(undisturbed.root, undisturbed.account, day, count)
    expected = read_events(undisturbed, FIRST, second, version=current_version(undisturbed))
    assert rows.sort("event_id").equals(expected.sort("event_id"))
