"""The clean rows of a run into the history, and days cleaned anew from what was delivered."""

import logging
from datetime import date, timedelta
from itertools import groupby
from typing import Any

import polars as pl

from recsys_ops.errors import DataError
from recsys_ops.history.table import SCHEMA, replace_days
from recsys_ops.ingest.clean_day import LAST_STEP, STEPS, kept_rows, run_step
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

# the trigger form allows no more days before a run's own
_MAX_LOOKBACK = 366


def commit_run(storage: Storage, run: date, run_id: str) -> dict[str, Any]:
    """Replace in the history the days that the run of a day read by what the cleaning steps left of them.

    A day that another run has read since is left to that run, whose rows are newer. Memory grows with the rows, without what the
    filters alone need of them.
    """
    first = date.fromisoformat(storage.facts(paths.step(LAST_STEP, run))["first_day"])
    days = _days(first, run)
    ours = [day for day, last in _last_runs(storage, days).items() if last == run]
    committed = [_commit(storage, run, stretch, run_id) for stretch in _stretches(ours)]
    if len(ours) < len(days):
        log.warning(
            "%d of %d days were read by a later run since and are left to it",
            len(days) - len(ours),
            len(days),
        )
    return {
        "rows": sum(rows for rows, _ in committed),
        "first_day": str(first),
        "days": len(ours),
        "history_version": max((version for _, version in committed), default=None),
    }


def _commit(storage: Storage, run: date, days: list[date], run_id: str) -> tuple[int, int]:
    """Adjoining days of a run into the history; returns their rows and the history's version."""
    rows, facts = kept_rows(storage, LAST_STEP, run)
    events = (
        rows.filter(pl.col("recorded_at").dt.date().is_between(days[0], days[-1]))
        .select("recorded_at", *(name for name in SCHEMA if name != "day"))
        .collect(engine="streaming")
    )
    about = {name: fact for name, fact in facts.items() if name != "judged"}
    version = replace_days(
        storage, events, days[0], days[-1], facts={**about, "day": str(run), "run": run_id}
    )
    return events.height, version


def replay_days(
    storage: Storage, first: date, last: date, settings: CleaningSettings
) -> dict[str, dict[date, Any]]:
    """Clean the days first … last anew from raw, with the contract and the lists of now, and replace them in the history.

    A day's rows are those of the run that read it last, because late and corrected rows reached only that one; the other days
    of that run stay as they are. Returns ``runs``, run → the figures of its steps, and ``rows``, day → its rows in the history.

    Raises DataError when no run whose raw object is still there has read a day, before anything is changed.
    """
    if last < first:
        raise DataError(f"{first} … {last} are no days: the first comes first")
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


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _stretches(days: list[date]) -> list[list[date]]:
    """Ascending days, cut where one is missing."""
    cut = groupby(enumerate(days), key=lambda numbered: numbered[1] - timedelta(days=numbered[0]))
    return [[day for _, day in stretch] for _, stretch in cut]


def _last_runs(storage: Storage, days: list[date]) -> dict[date, date]:
    """For each day the run that read it last, by the time at which its raw object was written."""
    written = {
        date.fromisoformat(path.split("/")[1].removeprefix("day=")): at
        for path, at in storage.written("raw").items()
    }
    found: dict[date, date] = {}
    for run in sorted(written, key=lambda run: (written[run], run), reverse=True):
        if days[0] <= run <= days[-1] + timedelta(days=_MAX_LOOKBACK) and len(found) < len(days):
            read_from = date.fromisoformat(storage.facts(paths.raw(run))["first_day"])
            found |= {day: run for day in days if read_from <= day <= run and day not in found}
    if gone := [str(day) for day in days if day not in found]:
        raise DataError(
            f"no raw object holds {', '.join(gone)}: expired or never extracted; run recsys_ingest for it instead"
        )
    return {day: found[day] for day in days}
