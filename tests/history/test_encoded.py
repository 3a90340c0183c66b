"""The encoded days are a cache: whatever happens to them, the events are the history's."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from recsys_ops.errors import DataError
from recsys_ops.history import encoded
from recsys_ops.history.encoded import check_superseded, read_encoded_events
from recsys_ops.history.table import apply_retention, current_version, read_events, replace_days
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings, HistorySettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

FIRST = date(2026, 3, 1)  # a Sunday
LAST = FIRST + timedelta(days=4)
DAYS = [FIRST + timedelta(days=n) for n in range(5)]
COLUMNS = ["day", "user_id", "item_id", "event_type", "second"]


def events(day: date, count: int = 300, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng([seed, day.toordinal()])
    at = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
    return pl.DataFrame(
        {
            "event_id": [f"{day}-{n}" for n in range(count)],
            "recorded_at": at,
            "event_time": [
                at + timedelta(seconds=int(n)) for n in rng.integers(-40_000, 40_000, count)
            ],
            "user_id": [f"ü{n}" for n in rng.integers(0, 40, count)],
            "item_id": [str(n) for n in rng.integers(0, 25, count)],
            "event_type": rng.choice(["view", "cart", "purchase"], count),
            "quantity": 1,
            "value": None,
        }
    )


@pytest.fixture
def filled(storage: Storage) -> Storage:
    for day in DAYS:
        replace_days(storage, events(day), day, day)
    return storage


def read(storage: Storage, first: date = FIRST, version: int | None = None) -> pl.DataFrame:
    return read_encoded_events(
        storage, first, LAST, version=current_version(storage) if version is None else version
    )


def same(
    storage: Storage, rows: pl.DataFrame, first: date = FIRST, version: int | None = None
) -> None:
    """Checks that the encoded events and their matrices are those of the history."""
    version = current_version(storage) if version is None else version
    expected = read_events(
        storage, first, LAST, version=version, columns=[*COLUMNS[:-1], "event_time"]
    )
    expected = expected.with_columns(
        second=pl.col("event_time").dt.epoch("s").cast(pl.UInt32)
    ).drop("event_time")
    assert rows.columns == COLUMNS
    assert (
        rows.cast({"user_id": pl.String, "item_id": pl.String, "event_type": pl.String})
        .sort(COLUMNS)
        .equals(expected.sort(COLUMNS))
    )
    settings = ConfidenceSettings(window_days=10), EvaluationSettings()
    one, other = (build_interactions(events, LAST, *settings) for events in (rows, expected))
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)
    for name in ("train", "full", "holdout"):
        for part in ("indptr", "indices", "data"):
            assert (
                getattr(getattr(one, name), part).tobytes()
                == getattr(getattr(other, name), part).tobytes()
            )


def read_from_history(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> tuple[pl.DataFrame, list[date]]:
    """The encoded events, and the days for which the history had to be read."""
    days = []
    read_history = read_events

    def watched(storage: Storage, first: date, last: date, **options: object) -> pl.DataFrame:
        days.append(first)
        assert first == last
        return read_history(storage, first, last, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(encoded, "read_events", watched)
        rows = read(storage)
    return rows, sorted(days)


def test_encoded_days_give_the_events_of_the_history(
    filled: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, made = read_from_history(filled, monkeypatch)
    again, made_again = read_from_history(filled, monkeypatch)
    assert (made, made_again) == (DAYS, [])
    same(filled, first)
    assert again.equals(first)


def test_only_a_replaced_day_is_read_from_the_history_again(
    filled: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(filled)
    replace_days(filled, events(DAYS[2], 200, seed=2), DAYS[2], DAYS[2])
    rows, made = read_from_history(filled, monkeypatch)
    assert made == [DAYS[2]]
    same(filled, rows)


def test_an_emptied_day_has_no_events_although_its_object_exists(filled: Storage) -> None:
    read(filled)
    replace_days(filled, events(DAYS[2]).clear(), DAYS[2], DAYS[2])
    rows = read(filled)
    assert filled.exists(paths.encoded(DAYS[2]))
    assert DAYS[2] not in rows["day"]
    same(filled, rows)


def test_an_old_version_has_the_events_it_had(filled: Storage) -> None:
    old = current_version(filled)
    before = read(filled)
    replace_days(filled, events(DAYS[1], 100, seed=3), DAYS[1], DAYS[1])
    now = read(filled)
    assert not now.equals(before)
    assert read(filled, version=old).equals(before)
    assert read(filled).equals(now)


def test_a_compacted_table_gives_the_same_events(
    filled: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = DeltaTable(filled.url(paths.HISTORY), storage_options=filled.options)
    rows = read_events(filled, DAYS[0], DAYS[0], version=table.version())
    write_deltalake(
        table, rows.with_columns(pl.format("more-{}", "event_id").alias("event_id")), mode="append"
    )
    before = read(filled)
    assert apply_retention(filled, FIRST, HistorySettings())["files_compacted"] == 2
    rows, made = read_from_history(filled, monkeypatch)
    assert made == [DAYS[0]]
    assert rows.equals(before)
    same(filled, rows)


DAMAGES: dict[str, Callable[[bytes, Storage], bytes]] = {
    "half of it": lambda data, _: data[: len(data) // 2],
    "nothing": lambda data, _: b"",
    "another file": lambda data, _: b"not what it was" * 100,
    "another day's": lambda data, storage: storage.get(paths.encoded(DAYS[3])),
    "raw rows": lambda data, storage: storage.get(
        next(p for p in storage.list(paths.HISTORY) if p.endswith(".parquet"))
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_or_foreign_object_is_written_again(
    filled: Storage, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes, Storage], bytes]
) -> None:
    before = read(filled)
    good = filled.get(paths.encoded(DAYS[1]))
    filled.put(paths.encoded(DAYS[1]), damage(good, filled))
    rows, made = read_from_history(filled, monkeypatch)
    assert made == [DAYS[1]]
    assert rows.equals(before)
    assert filled.get(paths.encoded(DAYS[1])) == good


def test_no_flipped_bit_changes_an_event(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    for day in DAYS[:2]:
        replace_days(storage, events(day), day, day)
    before = read(storage)
    good = storage.get(paths.encoded(DAYS[0]))
    rng = np.random.default_rng(4)
    for at in rng.choice(len(good), 150, replace=False):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        storage.put(paths.encoded(DAYS[0]), bytes(bad))
        assert read(storage).equals(before), f"byte {at}"


def test_an_encoded_day_with_a_wrong_digest_is_written_again(
    filled: Storage,
) -> None:
    before = read(filled)
    rows, metadata = filled.scan_parquet(paths.encoded(DAYS[1]))
    filled.write_parquet(
        paths.encoded(DAYS[1]), rows.with_columns(item=pl.col("item").reverse()).collect(), metadata
    )
    assert read(filled).equals(before)


def test_an_object_of_another_polars_is_written_again(
    filled: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(filled)
    monkeypatch.setattr(pl, "__version__", "99.0")
    rows, made = read_from_history(filled, monkeypatch)
    assert made == DAYS
    assert rows.equals(before)


def test_an_object_of_an_earlier_release_is_written_again(
    filled: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(filled)
    for day in DAYS:
        rows, metadata = filled.scan_parquet(paths.encoded(day))
        old = rows.drop("second").collect()
        digest = f"{old.height} {old.hash_rows().sum()}"
        filled.write_parquet(paths.encoded(day), old, {**metadata, "digest": digest})
    rows, made = read_from_history(filled, monkeypatch)
    assert made == DAYS
    assert rows.equals(before)


def test_a_deleted_cache_is_written_again_with_the_same_bytes(filled: Storage) -> None:
    before = read(filled)
    objects = {path: filled.get(path) for path in filled.list("encoded")}
    assert len(objects) == len(DAYS)
    for path in objects:
        filled.delete(path)
    assert read(filled).equals(before)
    assert {path: filled.get(path) for path in filled.list("encoded")} == objects


def test_an_event_corrected_on_later_days_counts_once_as_on_the_last(
    filled: Storage,
) -> None:
    corrected = events(DAYS[0])[:20].with_columns(
        recorded_at=pl.lit(datetime(2026, 3, 4, 9, tzinfo=UTC)), event_type=pl.lit("view")
    )
    once_more = corrected[:5].with_columns(
        recorded_at=pl.lit(datetime(2026, 3, 5, 9, tzinfo=UTC)), item_id=corrected["item_id"][:5]
    )
    for rows, day in ((corrected, DAYS[3]), (once_more, DAYS[4])):
        replace_days(
            filled,
            pl.concat([events(day), rows.select(events(day).columns)], how="vertical_relaxed"),
            day,
            day,
        )
    rows = read(filled)
    assert rows.height == 5 * 300
    assert rows.filter(day=DAYS[0]).height == 280
    assert rows.filter(day=DAYS[3]).height == 315
    same(filled, rows)
    same(filled, read(filled, first=DAYS[3]), first=DAYS[3])


def test_a_window_without_events_is_empty(storage: Storage) -> None:
    day = FIRST - timedelta(days=300)
    version = replace_days(storage, events(day), day, day)
    rows = read(storage, version=version)
    assert rows.is_empty()
    assert rows.columns == COLUMNS


def repeating(day: date, share: float) -> pl.DataFrame:
    """A day's events, of which this share has ids that every day has."""
    rows = events(day)
    number = pl.int_range(pl.len())
    return rows.with_columns(
        event_id=pl.when(number < share * pl.len())
        .then("all" + number.cast(pl.String))
        .otherwise("event_id"),
        item_id=pl.when(number < share * pl.len()).then(pl.lit("1")).otherwise("item_id"),
    )


@pytest.mark.parametrize(("share", "said"), [(0.02, False), (0.36, True)])
def test_events_that_several_days_have_are_counted_and_many_are_said(
    storage: Storage, share: float, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for day in DAYS:
        replace_days(storage, repeating(day, share), day, day)
    version = current_version(storage)
    rows = read(storage)
    assert check_superseded(storage, rows, FIRST, LAST, version=version) == 4 * 300 * share
    text = f"event_id repeats across days: 108 of 300 rows of {DAYS[3]} have an event"
    assert (text in caplog.text) is said
    # the window may begin within the history
    later = read(storage, DAYS[3])
    assert check_superseded(storage, later, DAYS[3], LAST, version=version) == 300 * share


def test_ids_that_restart_every_day_are_refused_with_the_cause(storage: Storage) -> None:
    for day in DAYS:
        replace_days(storage, repeating(day, 1), day, day)
    with pytest.raises(
        DataError,
        match=r"300 of 300 rows of 2026-03-04 .* 1,200 of the 1,500 rows of .* Make event_id uniq",
    ):
        check_superseded(storage, read(storage), FIRST, LAST, version=current_version(storage))


def test_one_old_day_that_was_written_again_is_refused(filled: Storage) -> None:
    replace_days(
        filled,
        pl.concat(
            [events(LAST), events(FIRST).with_columns(recorded_at=events(LAST)["recorded_at"])]
        ),
        LAST,
        LAST,
    )
    with pytest.raises(DataError, match="300 of 300 rows of 2026-03-01"):
        check_superseded(filled, read(filled), FIRST, LAST, version=current_version(filled))
