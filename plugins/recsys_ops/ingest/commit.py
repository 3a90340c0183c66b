"""Writing cleaned days into the history, and cleaning days of the past again."""

import logging
from datetime import date, timedelta
from itertools import groupby
from typing import Any

import polars as pl

from recsys_ops.errors import DataError
from recsys_ops.history.table import SCHEMA, replace_days
from recsys_ops.ingest.clean_day import SOURCE, kept_rows, run_step
from recsys_ops.ingest.steps import LAST_STEP, STEPS
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

# the task that commits
COMMIT = "commit_history"

# the trigger form allows at most this many days before the run's day
_MAX_LOOKBACK = 366


def commit_run(storage: Storage, run: date, run_id: str) -> dict[str, Any]:
    """Replace in the history the days that a run read by the rows that the last step kept.

    run : the run's day.
    A day that a later run has read since is left to that run, because its rows are newer. Memory
    grows with the rows, without the columns that only the filters need.
    """
    first = date.fromisoformat(storage.metadata(paths.step(LAST_STEP, run))["first_day"])
    days = _days(first, run)
    own_days = [day for day, last in _last_runs(storage, days).items() if last == run]
    committed = [_commit(storage, run, stretch, run_id) for stretch in _stretches(own_days)]
    if len(own_days) < len(days):
        log.warning(
            "a later run has read %d of the %d days since: its rows stay in the history",
            len(days) - len(own_days),
            len(days),
        )
    return {
        "rows": sum(rows for rows, _ in committed),
        "first_day": str(first),
        "days": len(own_days),
        "history_version": max((version for _, version in committed), default=None),
    }


def _commit(storage: Storage, run: date, days: list[date], run_id: str) -> tuple[int, int]:
    """Write adjoining days of a run; returns their number of rows and the history's version."""
    rows, metadata = kept_rows(storage, LAST_STEP, run)
    events = (
        rows.filter(pl.col("recorded_at").dt.date().is_between(days[0], days[-1]))
        .select("recorded_at", *(name for name in SCHEMA if name != "day"))
        .collect(engine="streaming")
    )
    metadata = {name: value for name, value in metadata.items() if name != SOURCE}
    metadata |= {"day": str(run), "run": run_id}
    return events.height, replace_days(storage, events, days[0], days[-1], metadata=metadata)


def replay_days(
    storage: Storage, first: date, last: date, settings: CleaningSettings
) -> dict[str, dict[date, Any]]:
    """Clean the days first … last again from raw and replace them in the history.

    The contract, the lists and the settings of now are used. The rows of a day are those of the
    run that read it last, because late and corrected rows reached only that run. The other days of
    that run do not change. Returns ``runs``, run → the figures of its steps, and ``rows``,
    day → its number of rows in the history.

    Raises DataError, before anything is changed, when a day was read by no run whose raw object
    still exists.
    """
    if last < first:
        raise DataError(f"{first} … {last} is no range of days: give the first day first")
    runs = _last_runs(storage, _days(first, last))
    figures = {
        run: {step: run_step(storage, step, run, settings) for step in STEPS}
        for run in sorted({*runs.values()})
    }
    return {
        "runs": figures,
        "rows": {
            day: _commit(storage, run, [day], f"replay of {day}")[0] for day, run in runs.items()
        },
    }


def read_days(storage: Storage, first: date, last: date) -> set[date]:
    """The days first … last that a run up to `last` has read and committed, by the runs' reports.

    A day is among them also if it had no rows.
    """
    runs = [day for day in _days(first, last) if storage.exists(paths.report(COMMIT, day))]
    return {
        day
        for run in runs
        for day in _days(
            max(
                first, date.fromisoformat(storage.read_json(paths.report(COMMIT, run))["first_day"])
            ),
            run,
        )
    }


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _stretches(days: list[date]) -> list[list[date]]:
    """Ascending days, cut where a day is missing."""
    groups = groupby(enumerate(days), key=lambda pair: pair[1] - timedelta(days=pair[0]))
    return [[day for _, day in stretch] for _, stretch in groups]


def _last_runs(storage: Storage, days: list[date]) -> dict[date, date]:
    """For each day the run that read it last, by the time at which its raw object was written."""
    write_times = {
        date.fromisoformat(path.split("/")[1].removeprefix("day=")): time
        for path, time in storage.write_times("raw").items()
    }
    last_runs: dict[date, date] = {}
    for run in sorted(write_times, key=lambda run: (write_times[run], run), reverse=True):
        may_have_read = days[0] <= run <= days[-1] + timedelta(days=_MAX_LOOKBACK)
        if may_have_read and len(last_runs) < len(days):
            first = date.fromisoformat(storage.metadata(paths.raw(run))["first_day"])
            last_runs |= {day: run for day in days if first <= day <= run and day not in last_runs}
    if missing := [str(day) for day in days if day not in last_runs]:
        raise DataError(
            f"no raw object holds {', '.join(missing)}: it has expired or was never extracted. "
            "Trigger recsys_ingest for these days instead"
        )
    return {day: last_runs[day] for day in days}
