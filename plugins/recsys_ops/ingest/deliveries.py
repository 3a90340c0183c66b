"""Deliveries: which run read a day, how many rows it got, and which days a run has to read."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from recsys_ops.errors import DamagedError, StorageError
from recsys_ops.ingest.plausibility import accepted, lost_rows, unusually_empty
from recsys_ops.storage import paths
from recsys_ops.storage.generations import Generation, generations, write_generation
from recsys_ops.storage.objects import Storage, error_reason
from recsys_ops.storage.temporary_folder import temporary_folder

log = logging.getLogger(__name__)

# the trigger form allows at most this many days before the run's day
MAX_LOOKBACK = 366
ROWS = "rows"  # metadata: the number of rows of each day, as JSON


@dataclass(frozen=True)
class Delivery:
    """A raw object.

    run_day, run : the day and the id of the run that extracted it
    rows : of each day that was read, in the order in which they stand in the object
    accepted : why a loss of rows was accepted, if there was one
    """

    number: int
    run_day: date
    path: str
    written: datetime
    rows: Mapping[date, int]
    run: str
    accepted: str | None


def write_delivery(
    storage: Storage,
    run_day: date,
    frame: pl.LazyFrame,
    rows: Mapping[date, int],
    run: str,
    accepted: str | None = None,
) -> str:
    """Write a new raw object, the run day's current one from now on; returns its path.

    Memory does not grow with the rows, a temporary file holds them.
    """
    metadata = {ROWS: json.dumps({str(day): count for day, count in rows.items()}), "run": run}
    if accepted:
        metadata["accepted"] = accepted
    with temporary_folder() as folder:
        file = folder / "delivery.parquet"
        try:
            frame.sink_parquet(
                file,
                compression="zstd",
                compression_level=1,
                metadata=metadata,
                maintain_order=True,
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StorageError(
                f"cannot write a delivery to {folder}: {error_reason(error)}; "
                "free disk space there or set TMPDIR"
            ) from error
        return write_generation(storage, paths.RAW, run_day, file)


def rows_read(metadata: Mapping[str, str]) -> dict[date, int]:
    """The days that a delivery holds, and their numbers of rows, from its metadata."""
    return {date.fromisoformat(day): count for day, count in json.loads(metadata[ROWS]).items()}


def deliveries_of(storage: Storage, day: date) -> list[Delivery]:
    """All deliveries that hold a day, from old to new. A damaged raw object is left out."""
    newest_first = [
        delivery for delivery in _newest_first(storage, [day], []) if day in delivery.rows
    ]
    return newest_first[::-1]


def last_deliveries(
    storage: Storage, days: Sequence[date]
) -> tuple[dict[date, Delivery], list[str]]:
    """For each of the days that a delivery holds the last one, in the order of the days.

    days : ascending.
    Also returns the paths of damaged raw objects that may hold later rows than those found.
    """
    last: dict[date, Delivery] = {}
    damaged: list[str] = []
    for delivery in _newest_first(storage, days, damaged):
        last |= {day: delivery for day in days if day in delivery.rows and day not in last}
        if len(last) == len(days):
            break
    return {day: last[day] for day in days if day in last}, damaged


def _newest_first(storage: Storage, days: Sequence[date], damaged: list[str]) -> Iterator[Delivery]:
    """The deliveries that may hold one of the days; unreadable ones are added to `damaged`."""
    for generation in reversed(generations(storage, paths.RAW)):
        if days[0] <= generation.day <= days[-1] + timedelta(days=MAX_LOOKBACK):
            try:
                yield _read(storage, generation)
            except (DamagedError, KeyError, ValueError) as error:
                log.warning("%s is damaged and is left out: %s", generation.path, error)
                damaged.append(generation.path)


def _read(storage: Storage, generation: Generation) -> Delivery:
    metadata = storage.metadata(generation.path)
    return Delivery(
        generation.number,
        generation.day,
        generation.path,
        generation.written,
        rows_read(metadata),
        metadata["run"],
        metadata.get("accepted"),
    )


def check_delivery(
    storage: Storage,
    rows: Mapping[date, int],
    history: Mapping[date, int],
    min_kept_share: float,
    reason: str | None,
) -> str | None:
    """Compare a new delivery with those before; returns the reason if it had to be accepted.

    rows, history : of each day in the delivery and in the history
    reason : why a loss of rows is to be accepted, if a person has given one

    Raises DataError for an implausible loss without a reason.
    """
    last, _ = last_deliveries(storage, list(rows))
    before = {day: delivery.rows[day] for day, delivery in last.items()}
    # one delivered row can become several in the history, so only an empty day is a loss for sure
    emptied = {day: history[day] for day, count in rows.items() if not count and day in history}
    return accepted(
        [
            *lost_rows(rows, emptied | before, min_kept_share),
            *unusually_empty(rows, {**history, **before}),
        ],
        reason,
    )


def missing_days(storage: Storage, days: Sequence[date], history: Mapping[date, int]) -> list[date]:
    """Those of the days that the history lacks, unless their last delivery says they are empty.

    days : ascending. Days before the first one in the history or in a delivery are not missing.
    """
    lacking = [day for day in days if day not in history]
    if not lacking:
        return []
    last, _ = last_deliveries(storage, days)
    first_known = min([*history, *last], default=date.max)
    return [
        day for day in lacking if day >= first_known and (day not in last or last[day].rows[day])
    ]
