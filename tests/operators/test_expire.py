"""What the task `expire` deletes, and what stays."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from support.history_rows import counts, events

from recsys_ops.errors import StorageError
from recsys_ops.history.table import replace_days
from recsys_ops.operators.expire import PERSONAL_DATA, ExpireOperator, expire
from recsys_ops.run_day import day_start
from recsys_ops.settings import load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

NEWEST = date(2026, 6, 30)
EVER = datetime.max.replace(tzinfo=UTC)


def raw(day: date) -> str:
    return paths.generation(paths.RAW, day, 1, "0" * 8)


def write(storage: Storage, day: date) -> dict[str, list[str]]:
    """Write a day's objects; returns their paths by whether they hold personal data."""
    personal = [
        raw(day),
        paths.step("fix_types", day),
        paths.quarantine("fix_types", day),
        paths.job(day, "train.npz"),
    ]
    kept = [
        paths.report("gate", day),
        paths.generation(paths.CATALOGUE, day, 1, "0" * 8),
        paths.model(f"{day}-v", "verdict.json"),
    ]
    for path in [*personal, *kept]:
        storage.put(path, b"1")
    return {"personal": personal, "kept": kept}


def age(folder: Path, day: date) -> None:
    """Set the time of writing of all files in a folder to the beginning of a day."""
    timestamp = day_start(day).timestamp()
    for path in folder.rglob("*"):
        if "history" not in path.parts:
            os.utime(path, (timestamp, timestamp))


def test_old_personal_data_are_deleted_and_reports_and_verdicts_stay(storage: Storage) -> None:
    old, kept = (
        write(storage, NEWEST - timedelta(days=91)),
        write(storage, NEWEST - timedelta(days=90)),
    )
    assert expire(storage, NEWEST - timedelta(days=90), EVER, PERSONAL_DATA) == (
        {"raw": 1, "cleaning": 1, "quarantine": 1, "jobs": 1},
        [],
    )
    assert storage.list("") == sorted([*old["kept"], *kept["personal"], *kept["kept"]])


def test_objects_that_a_backfill_has_just_written_stay(storage: Storage) -> None:
    write(storage, NEWEST - timedelta(days=300))
    before = storage.list("")
    written = max(storage.write_times("").values())
    first_written = min(storage.write_times("").values())
    assert set(expire(storage, NEWEST, first_written, PERSONAL_DATA)[0].values()) == {0}
    assert storage.list("") == before
    later = written + timedelta(seconds=1)
    assert set(expire(storage, NEWEST, later, PERSONAL_DATA)[0].values()) == {1}


@pytest.fixture
def night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the task `expire` of a day in a run of this type."""
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", f"file://{tmp_path}")
    load_settings.cache_clear()

    def run(day: date, run_type: str = "scheduled") -> dict[str, Any]:
        after = datetime(2026, 7, 2, 2, tzinfo=UTC)
        dag_run = SimpleNamespace(
            triggering_user_name=None,
            run_id="x",
            run_type=run_type,
            logical_date=after,
            run_after=after,
        )
        return ExpireOperator(task_id="expire", day=str(day)).execute(
            {"dag_run": dag_run, "params": {}}
        )  # type: ignore[typeddict-item]

    yield run
    load_settings.cache_clear()


def test_days_older_than_the_retention_are_dropped(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    storage = Storage(f"file://{tmp_path}")
    expired_day, kept = NEWEST - timedelta(days=401), NEWEST - timedelta(days=400)
    for day in (expired_day, kept, NEWEST):
        replace_days(storage, events(day, 1), day, day)
        write(storage, day)
        storage.put(paths.encoded(day), b"1")
        storage.put(paths.model(f"{day:%Y%m%d}-0123456789", "factors.npz"), b"never finished")
    age(tmp_path, expired_day)
    expired = {"raw": 2, "cleaning": 2, "quarantine": 2, "jobs": 2, "encoded": 1, "models": 2}
    assert night(NEWEST) == {"expired": expired, "leftovers": 0, "days_dropped": 1}
    assert list(counts(storage, expired_day)) == [kept, NEWEST]
    assert storage.list("encoded") == [paths.encoded(kept), paths.encoded(NEWEST)]
    assert storage.exists(raw(NEWEST))


def test_objects_younger_than_two_days_are_not_deleted(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    storage = Storage(f"file://{tmp_path}")
    replace_days(storage, events(NEWEST, 1), NEWEST, NEWEST)
    write(storage, NEWEST - timedelta(days=100))
    half = tmp_path / "raw" / f"day={NEWEST}" / "events.parquet#1"
    half.parent.mkdir()
    half.write_bytes(b"PAR1")
    age(tmp_path, NEWEST - timedelta(days=1))
    before = storage.list("")
    figures = night(NEWEST)
    assert (set(figures["expired"].values()), figures["leftovers"], half.exists()) == ({0}, 0, True)
    assert storage.list("") == sorted([*before, paths.report("expire", NEWEST)])
    figures = night(NEWEST + timedelta(days=1))
    assert (figures["expired"]["raw"], figures["leftovers"], half.exists()) == (1, 1, False)


def test_a_run_of_an_old_day_deletes_nothing_newer_and_nothing_of_its_own(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    storage = Storage(f"file://{tmp_path}")
    old = NEWEST - timedelta(days=300)
    for day in (old, NEWEST):
        replace_days(storage, events(day, 1), day, day)
        write(storage, day)
    before = storage.list("raw")
    assert night(old, "manual")["expired"]["raw"] == 0
    assert storage.list("raw") == before
    assert list(counts(storage, old)) == [old, NEWEST]


def test_a_backfilled_day_deletes_nothing(night: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AirflowSkipException, match="was backfilled"):
        night(NEWEST, "backfill")


def test_foreign_and_damaged_objects_keep_no_other_from_expiring(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    storage = Storage(f"file://{tmp_path}")
    old = NEWEST - timedelta(days=300)
    replace_days(storage, events(NEWEST, 1), NEWEST, NEWEST)
    written = write(storage, old)
    foreign = ["raw/README.txt", "raw/.DS_Store", "raw/day=old/x", "jobs/day=2020-02-30/spec.json"]
    for path in foreign:
        storage.put(path, b"x")
    storage.put(paths.model(f"{old:%Y%m%d}-0123456789", "factors.npz"), b"never finished")
    storage.put(paths.job(NEWEST, "spec.json"), b"{}")
    age(tmp_path, old)
    ahead = tmp_path / paths.step("deduplicate", old)
    ahead.write_bytes(b"1")
    os.utime(ahead, (2e9, 2e9))  # 2033

    with pytest.raises(
        StorageError, match="2 objects did not expire or could not be read"
    ) as error:
        night(NEWEST)

    assert f"{paths.step('deduplicate', old)} has the time 2033-05-18" in str(error.value)
    assert f"{paths.job(NEWEST, 'spec.json')} is damaged" in str(error.value)
    left = storage.list("")
    assert [path for path in foreign if path not in left] == []
    assert [path for path in written["personal"] if path in left] == []
    assert paths.model(f"{old:%Y%m%d}-0123456789", "factors.npz") not in left
