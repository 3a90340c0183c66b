"""Writing cleaned days into the history, and cleaning or restoring days of the past."""

import logging
from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl

from recsys_ops.errors import DamagedError, DataError, StorageError
from recsys_ops.history.table import SCHEMA, replace_days, rows_by_day
from recsys_ops.ingest.clean_day import DELIVERY, SOURCE, kept_rows, run_step
from recsys_ops.ingest.deliveries import (
    ROWS,
    Delivery,
    deliveries_of,
    last_deliveries,
    rows_read,
    write_delivery,
)
from recsys_ops.ingest.plausibility import accepted, lost_rows
from recsys_ops.ingest.steps import LAST_STEP, STEPS
from recsys_ops.run_day import days_between, format_days, stretches
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

# the task that commits
COMMIT = "commit_history"


def commit_run(
    storage: Storage,
    run_day: date,
    run: str,
    *,
    min_kept_share: float,
    reason: str | None = None,
) -> dict[str, Any]:
    """Replace in the history the days that a run read by the rows that the last step kept.

    run_day, run : the run's day and id.
    reason : why a loss of rows is to be accepted, if a person has given one.

    A day that a later delivery holds is left to that one, because its rows are newer. Memory grows
    with the rows, without the columns that only the filters need. Raises DataError for an
    implausible loss of rows without a reason; nothing is changed then.
    """
    _, metadata = kept_rows(storage, LAST_STEP, run_day)
    days = [*rows_read(metadata)]
    last, _ = last_deliveries(storage, days)
    own_days = [day for day in days if day in last and last[day].path == metadata[DELIVERY]]
    if len(own_days) < len(days):
        log.warning(
            "a later run has read %d of the %d days since: its rows stay in the history",
            len(days) - len(own_days),
            len(days),
        )
    figures = _commit(storage, run_day, own_days, run, min_kept_share, reason)
    return {
        "rows": sum(figures.pop("rows").values()),
        "read": [[str(first), str(last)] for first, last in stretches(days)],
        "days": len(own_days),
        **figures,
    }


def replay_days(
    storage: Storage,
    first: date,
    last: date,
    settings: CleaningSettings,
    *,
    min_kept_share: float,
    reason: str | None = None,
) -> dict[str, dict[date, Any]]:
    """Clean the days first … last again from raw and replace them in the history.

    The contract, the lists and the settings of now are used. The rows of a day are those of its
    last delivery, because late and corrected rows reached only that one. The other days of that
    delivery do not change. Returns ``runs``, the run's day → the figures of its steps, and
    ``rows``, day → its number of rows in the history.

    Raises DataError, before anything is changed, when no raw object holds a day, StorageError when
    a damaged one may hold later rows of it, and DataError for an implausible loss of rows.
    """
    if last < first:
        raise DataError(f"{first} … {last} is no range of days: give the first day first")
    days = days_between(first, last)
    deliveries, damaged = last_deliveries(storage, days)
    if damaged:
        raise StorageError(
            f"damaged, and may hold later rows of these days: {', '.join(damaged)}. "
            "Delete it to use the delivery before it, or trigger recsys_ingest for these days"
        )
    if missing := [day for day in days if day not in deliveries]:
        raise DataError(_no_delivery(format_days(missing)))
    figures: dict[date, Any] = {}
    rows: dict[date, int] = {}
    by_age = sorted(deliveries.values(), key=lambda delivery: (delivery.number, delivery.run_day))
    for path in dict.fromkeys(delivery.path for delivery in by_age):
        own_days = [day for day in days if deliveries[day].path == path]
        delivery = deliveries[own_days[0]]
        figures[delivery.run_day], committed = _clean_and_commit(
            storage,
            delivery,
            own_days,
            settings,
            f"replay of {format_days(own_days)}",
            min_kept_share,
            reason,
        )
        rows |= committed
    return {"runs": figures, "rows": {day: rows[day] for day in days}}


def read_days(storage: Storage, first: date, last: date) -> set[date]:
    """The days first … last that a run up to `last` has read and committed, by the runs' reports.

    A day is among them also if it had no rows.
    """
    days: set[date] = set()
    for run_day in days_between(first, last):
        if storage.exists(path := paths.report(COMMIT, run_day)):
            try:
                read = storage.read_record(path, "read")["read"]
            except DamagedError as error:
                log.warning("%s does not count as read: %s", run_day, error)
                continue
            for stretch in read:
                days |= {*days_between(*map(date.fromisoformat, stretch))}
    return days & {*days_between(first, last)}


def restore_day(
    storage: Storage,
    day: date,
    settings: CleaningSettings,
    *,
    min_kept_share: float,
    number: int | None = None,
    reason: str | None = None,
) -> tuple[Delivery, int]:
    """Make an earlier delivery of a day current again, and clean and commit the day from it.

    number : of the delivery; None: the newest that has more rows of the day than the current one.

    The day's rows are copied into a new raw object, so other days do not change, and the rows that
    are replaced can be restored in turn. Returns the earlier delivery, and the day's number of rows
    in the history. Raises DataError when there is no such delivery, and for an implausible loss of
    rows without a reason.
    """
    deliveries = deliveries_of(storage, day)
    if not deliveries:
        raise DataError(_no_delivery(str(day)))
    *_, current = deliveries
    wanted = [
        delivery
        for delivery in deliveries
        if (delivery.rows[day] > current.rows[day] if number is None else delivery.number == number)
    ]
    if not wanted:
        numbers = ", ".join(str(delivery.number) for delivery in deliveries)
        raise DataError(
            f"no delivery of {day} has more rows than the current one, {current.number}"
            if number is None
            else f"no delivery of {day} has the number {number}: those that exist are {numbers}"
        )
    earlier = wanted[-1]
    rows = {day: earlier.rows[day]}
    why = accepted(lost_rows(rows, current.rows, min_kept_share), reason)
    frame, _ = storage.scan_parquet(earlier.path)
    before = sum(count for other, count in earlier.rows.items() if other < day)
    run = f"restore of generation {earlier.number}"
    write_delivery(storage, day, frame.slice(before, earlier.rows[day]), rows, run, why)
    restored = deliveries_of(storage, day)[-1]
    _, committed = _clean_and_commit(
        storage, restored, [day], settings, run, min_kept_share, reason
    )
    return earlier, committed[day]


def _clean_and_commit(
    storage: Storage,
    delivery: Delivery,
    days: Sequence[date],
    settings: CleaningSettings,
    run: str,
    min_kept_share: float,
    reason: str | None,
) -> tuple[dict[str, Any], dict[date, int]]:
    """Clean a delivery and write some of its days; returns the steps' figures and days' rows."""
    figures = {
        step: run_step(storage, step, delivery.run_day, settings, delivery.path) for step in STEPS
    }
    rows = _commit(storage, delivery.run_day, days, run, min_kept_share, reason)["rows"]
    return figures, rows


def _commit(
    storage: Storage,
    run_day: date,
    days: Sequence[date],
    run: str,
    min_kept_share: float,
    reason: str | None,
) -> dict[str, Any]:
    """Write some of the days of a run.

    Returns their rows, the rows that lie outside of the days that the run has read, the history's
    version, and the reason if it was needed.
    """
    rows, metadata = kept_rows(storage, LAST_STEP, run_day)
    rows = rows.with_columns(day=pl.col("recorded_at").dt.date())
    kept = dict(rows.group_by("day").len().collect(engine="streaming").iter_rows())
    counts = {day: kept.get(day, 0) for day in days}
    outside = sum(kept.values()) - sum(kept.get(day, 0) for day in rows_read(metadata))
    losses = lost_rows(counts, rows_by_day(storage), min_kept_share)
    if outside:
        log.warning(
            "%d of %d rows were recorded outside of the days that the run has read, and are left "
            "out: include/sql and the contract disagree about recorded_at or its time zone",
            outside,
            sum(kept.values()),
        )
        if outside > (1 - min_kept_share) * sum(kept.values()):
            losses.append(f"{outside:,} of {sum(kept.values()):,} rows lie outside of these days")
    why = accepted(losses, reason)
    metadata = {name: value for name, value in metadata.items() if name not in (SOURCE, ROWS)}
    metadata |= {"day": str(run_day), "run": run} | ({"accepted": why} if why else {})
    version = None
    for first, last in stretches(days):
        events = (
            rows.filter(pl.col("day").is_between(first, last))
            .select("recorded_at", *(name for name in SCHEMA if name != "day"))
            .collect(engine="streaming")
        )
        version = replace_days(storage, events, first, last, metadata=metadata)
    return {"rows": counts, "outside": outside, "history_version": version, "accepted": why}


def _no_delivery(days: str) -> str:
    return (
        f"no raw object holds {days}: it has expired or was never extracted. "
        "Trigger recsys_ingest for these days instead"
    )
