"""Days written into the history, and days cleaned again from raw after a correction."""

import os
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support.delivery import DAY, GOOD, SETTINGS

from recsys_ops.errors import DataError, StorageError
from recsys_ops.history.table import current_version, history_status, read_events
from recsys_ops.ingest.clean_day import run_step
from recsys_ops.ingest.commit import commit_run, read_days, replay_days, restore_day
from recsys_ops.ingest.deliveries import write_delivery
from recsys_ops.ingest.quarantine import quarantine_summary, rejected_rows
from recsys_ops.ingest.steps import STEPS
from recsys_ops.run_day import days_between
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage

STRICT = CleaningSettings.model_validate({"staff": {"user_ids": ["u1"]}, "max_rejected_share": 1})
BEFORE = DAY - timedelta(days=1)


def ingested(
    storage: Storage,
    run: date,
    events: dict[str, date],
    *,
    lookback: int,
    settings: CleaningSettings = STRICT,
    commit: bool = True,
) -> None:
    """The run of a day: all steps, then the commit.

    events : event id → the day on which it was recorded.
    """
    good = GOOD | {"event_time": "2026-02-01T11:59:58Z"}
    rows = [
        {"row_id": event, "event_id": event}
        | good
        | {"recorded_at": datetime.combine(day, GOOD["recorded_at"].timetz())}
        for event, day in (events | {"none": run}).items()
    ]
    days = days_between(run - timedelta(days=lookback), run)
    read = {day: [*events.values()].count(day) for day in days}
    write_delivery(storage, run, pl.DataFrame(rows).head(-1).lazy(), read, "scheduled")
    for step in STEPS:
        run_step(storage, step, run, settings)
    if commit:
        commit_run(storage, run, "scheduled", min_kept_share=0.9, reason="as the test wants")


def held(storage: Storage) -> dict[date, list[str]]:
    rows = read_events(storage, date.min, date.max, version=current_version(storage))
    return {
        day[0]: sorted(events["event_id"])
        for day, events in rows.partition_by("day", as_dict=True).items()
    }


def test_a_replayed_day_has_its_late_rows_and_other_days_stay(
    storage: Storage,
) -> None:
    ingested(storage, BEFORE, {"a": BEFORE}, lookback=0)
    ingested(storage, DAY, {"a": BEFORE, "late": BEFORE, "b": DAY}, lookback=1)
    assert held(storage) == {}
    replayed = replay_days(storage, BEFORE, BEFORE, SETTINGS, min_kept_share=0.9)
    assert held(storage) == {BEFORE: ["a", "late"]}
    assert replayed["rows"] == {BEFORE: 2}
    assert {
        run: figures["filter_staff"]["rejected"] for run, figures in replayed["runs"].items()
    } == {DAY: 0}
    replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    assert held(storage) == {BEFORE: ["a", "late"], DAY: ["b"]}


def test_a_replay_uses_the_run_that_read_the_day_last(
    storage: Storage,
) -> None:
    ingested(storage, DAY, {"a": BEFORE, "erased": BEFORE, "b": DAY}, lookback=1, settings=SETTINGS)
    ingested(storage, BEFORE, {"a": BEFORE, "very late": BEFORE}, lookback=0, settings=SETTINGS)
    replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    assert held(storage) == {BEFORE: ["a", "very late"], DAY: ["b"]}


def test_a_late_commit_leaves_the_days_that_a_later_run_has_read_since(storage: Storage) -> None:
    ingested(
        storage,
        BEFORE,
        {"x": BEFORE - timedelta(days=1), "a": BEFORE},
        lookback=1,
        settings=SETTINGS,
    )
    ingested(storage, DAY, {"a": BEFORE, "late": BEFORE, "b": DAY}, lookback=1, settings=SETTINGS)
    assert commit_run(storage, BEFORE, "cleared", min_kept_share=0)["days"] == 1
    assert held(storage) == {BEFORE - timedelta(days=1): ["x"], BEFORE: ["a", "late"], DAY: ["b"]}


def test_deliveries_that_overlap_by_nine_days_lose_and_double_no_row(
    storage: Storage,
) -> None:
    days = [DAY - timedelta(days=ago) for ago in range(15)]
    events = {f"{day}-{n}": day for day in days for n in range(3)}
    for run, first in ((days[3], days[14]), (days[0], days[11])):
        delivered = {event: day for event, day in events.items() if first <= day <= run}
        ingested(storage, run, delivered, lookback=(run - first).days, settings=SETTINGS)
    assert held(storage) == {day: [f"{day}-{n}" for n in range(3)] for day in days}


def test_a_day_whose_raw_rows_are_gone_is_named_and_nothing_is_changed(storage: Storage) -> None:
    ingested(storage, DAY, {"b": DAY}, lookback=0)
    with pytest.raises(
        DataError, match=f"no raw object holds {BEFORE}: .* Trigger recsys_ingest for these days"
    ):
        replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    assert held(storage) == {}


def test_the_quarantine_summary_counts_reasons_and_shows_a_row_each(
    storage: Storage,
) -> None:
    ingested(storage, DAY, {"a": DAY, "b": DAY, "c": DAY}, lookback=0)
    assert quarantine_summary(storage, DAY).rows() == [
        ("filter_staff", "staff_account", "user_id", 3, "a", "u1")
    ]
    assert rejected_rows(storage, "filter_staff", DAY, "staff_account", 2)["row_id"].to_list() == [
        "a",
        "b",
    ]
    assert rejected_rows(storage, "filter_staff", DAY, "staff_role", 2).is_empty()


def test_days_that_runs_have_read_are_known_also_where_they_were_empty(storage: Storage) -> None:
    def days(*ages: int) -> set[date]:
        return {DAY - timedelta(days=age) for age in ages}

    for age, lookback in ((0, 1), (4, 2), (30, 3)):
        run = DAY - timedelta(days=age)
        first = run - timedelta(days=lookback)
        read = [[str(first), str(run)]]
        if age == 0:
            read.insert(0, [str(DAY - timedelta(days=3))] * 2)
        storage.write_json(paths.report("commit_history", run), {"read": read})
    assert read_days(storage, DAY - timedelta(days=5), DAY) == days(0, 1, 3, 4, 5)
    assert read_days(storage, DAY - timedelta(days=5), BEFORE) == days(4, 5)


def last_commit(storage: Storage) -> Mapping[str, Any]:
    last = history_status(storage, DAY).last
    assert last is not None
    return last.metadata


def test_a_clock_that_was_ahead_does_not_decide_which_rows_are_last(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    ingested(storage, BEFORE, {"a": BEFORE}, lookback=0, settings=SETTINGS)
    ahead = tmp_path / current_generation(storage, paths.RAW, BEFORE)
    os.utime(ahead, (4e9, 4e9))
    ingested(storage, DAY, {"a": BEFORE, "late": BEFORE, "b": DAY}, lookback=1, settings=SETTINGS)
    assert held(storage) == {BEFORE: ["a", "late"], DAY: ["b"]}
    replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    assert held(storage) == {BEFORE: ["a", "late"], DAY: ["b"]}


def test_late_rows_survive_a_run_of_only_the_day_that_read_them(storage: Storage) -> None:
    ingested(storage, BEFORE, {"a": BEFORE}, lookback=0, settings=SETTINGS)
    ingested(storage, DAY, {"a": BEFORE, "late": BEFORE, "b": DAY}, lookback=1, settings=SETTINGS)
    ingested(storage, DAY, {"b": DAY, "c": DAY}, lookback=0, settings=SETTINGS)
    replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    assert held(storage) == {BEFORE: ["a", "late"], DAY: ["b", "c"]}


def test_a_filter_that_empties_a_day_is_refused_without_a_reason(storage: Storage) -> None:
    events = {f"{n}": day for n, day in enumerate([BEFORE, DAY] * 3)}
    ingested(storage, DAY, events, lookback=1, settings=SETTINGS)
    before = held(storage)
    with pytest.raises(DataError, match=f"{BEFORE} would have 0 of its 3 rows; {DAY} would have 0"):
        replay_days(storage, BEFORE, DAY, STRICT, min_kept_share=0.9)
    assert held(storage) == before
    with pytest.raises(DataError, match="refused, nothing was replaced"):
        commit_run(storage, DAY, "scheduled", min_kept_share=0.9)
    assert held(storage) == before
    replay_days(storage, DAY, DAY, STRICT, min_kept_share=0.9, reason="u1 was staff")
    assert held(storage) == {BEFORE: before[BEFORE]}
    assert last_commit(storage)["accepted"] == "u1 was staff"


def test_rows_of_days_that_were_not_read_are_counted_and_refused(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    events = {f"{n}": DAY for n in range(99)}
    ingested(storage, DAY, events | {"stray": BEFORE}, lookback=0, settings=SETTINGS)
    assert len(held(storage)[DAY]) == 99
    assert "1 of 100 rows were recorded outside of the days" in caplog.text
    ingested(
        storage, DAY, dict.fromkeys(events, BEFORE), lookback=0, settings=SETTINGS, commit=False
    )
    with pytest.raises(DataError, match="99 of 99 rows lie outside"):
        commit_run(storage, DAY, "scheduled", min_kept_share=0.9)


def test_a_purged_day_is_restored_from_an_earlier_delivery(storage: Storage) -> None:
    rows = {f"{day}-{n}": day for day in (BEFORE, DAY) for n in range(5)}
    ingested(storage, DAY, rows, lookback=1, settings=SETTINGS)
    before = held(storage)
    ingested(storage, BEFORE, {}, lookback=0, settings=SETTINGS)
    assert held(storage) == {DAY: before[DAY]}
    earlier, count = restore_day(storage, BEFORE, SETTINGS, min_kept_share=0.9)
    assert (earlier.run_day, count) == (DAY, 5)
    assert held(storage) == before
    assert last_commit(storage)["run"] == f"restore of generation {earlier.number}"
    replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    assert held(storage) == before
    with pytest.raises(DataError, match="has more rows than the current one, 3"):
        restore_day(storage, BEFORE, SETTINGS, min_kept_share=0.9)
    with pytest.raises(DataError, match="has the number 7: those that exist are 1, 2, 3"):
        restore_day(storage, BEFORE, SETTINGS, min_kept_share=0.9, number=7)
    with pytest.raises(DataError, match=f"{BEFORE} would have 0 of its 5 rows"):
        restore_day(storage, BEFORE, SETTINGS, min_kept_share=0.9, number=2)
    assert held(storage) == before
    with pytest.raises(DataError, match="no raw object holds 2020-01-01: it has expired"):
        restore_day(storage, date(2020, 1, 1), SETTINGS, min_kept_share=0.9)


def test_a_damaged_delivery_is_named_and_other_days_are_not_stopped(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    ingested(storage, BEFORE, {"a": BEFORE}, lookback=0, settings=SETTINGS)
    ingested(storage, BEFORE, {"a": BEFORE, "b": BEFORE}, lookback=0, settings=SETTINGS)
    damaged = current_generation(storage, paths.RAW, BEFORE)
    storage.put(damaged, storage.get(damaged)[:100])
    storage.put("raw/README.txt", b"not ours")
    storage.put(f"raw/day={BEFORE}/.DS_Store", b"not ours")
    ingested(storage, DAY, {"c": DAY}, lookback=0, settings=SETTINGS)
    assert held(storage) == {BEFORE: ["a", "b"], DAY: ["c"]}
    with pytest.raises(StorageError, match=f"may hold later rows of these days: {damaged}"):
        replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.9)
    storage.delete(damaged)
    replay_days(storage, BEFORE, DAY, SETTINGS, min_kept_share=0.5)
    assert held(storage) == {BEFORE: ["a"], DAY: ["c"]}
