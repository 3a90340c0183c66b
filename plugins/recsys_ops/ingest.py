"""The clean rows of a run into the history, and days cleaned anew from what was delivered."""

from datetime import date, timedelta
from typing import Any

import polars as pl

from recsys_ops import history, paths, steps
from recsys_ops.errors import DataError
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import Storage

# the trigger form allows no more days before a run's own
_MAX_LOOKBACK = 366


def commit(storage: Storage, run: date, run_id: str, only: date | None = None) -> dict[str, Any]:
    """Replace in the history the days that the run of a day read, or `only` one of them, by what the cleaning steps left.

    Memory grows with those rows, without what the filters alone need of them.
    """
    rows, facts = steps.kept_rows(storage, steps.LAST, run)
    first, last = (only, only) if only else (date.fromisoformat(facts["first_day"]), run)
    events = (
        rows.filter(pl.col("recorded_at").dt.date() == only if only else True)
        .select("recorded_at", *(name for name in history.SCHEMA if name != "day"))
        .collect(engine="streaming")
    )
    about = {name: fact for name, fact in facts.items() if name != "judged"}
    version = history.replace_days(storage, events, first, last, facts={**about, "day": str(run), "run": run_id})
    return {"rows": events.height, "first_day": str(first), "history_version": version}


def replay(storage: Storage, first: date, last: date, settings: CleaningSettings) -> dict[str, dict[date, Any]]:
    """Clean the days first … last anew from raw, with the contract and the lists of now, and replace them in the history.

    A day's rows are those of the run that read it last, because late and corrected rows reached only that one; the other days
    of that run stay as they are. Returns ``runs``, run → the figures of its steps, and ``rows``, day → its rows in the history.

    Raises DataError when no run whose raw object is still there has read a day, before anything is changed.
    """
    if last < first:
        raise DataError(f"{first} … {last} are no days: the first comes first")
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    runs = _latest_runs(storage, days)
    figures = {run: {step: steps.clean(storage, step, run, settings) for step in steps.STEPS} for run in sorted({*runs.values()})}
    return {
        "runs": figures,
        "rows": {day: commit(storage, run, f"replay of {day}", only=day)["rows"] for day, run in runs.items()},
    }


def _latest_runs(storage: Storage, days: list[date]) -> dict[date, date]:
    """For each day the run that read it last, by the time at which its raw object was written."""
    written = {date.fromisoformat(path.split("/")[1].removeprefix("day=")): at for path, at in storage.written("raw").items()}
    found: dict[date, date] = {}
    for run in sorted(written, key=lambda run: (written[run], run), reverse=True):
        if days[0] <= run <= days[-1] + timedelta(days=_MAX_LOOKBACK) and len(found) < len(days):
            read_from = date.fromisoformat(storage.scan_parquet(paths.raw(run))[1]["first_day"])
            found |= {day: run for day in days if read_from <= day <= run and day not in found}
    if gone := [str(day) for day in days if day not in found]:
        raise DataError(f"no raw object holds {', '.join(gone)}: expired or never extracted; run recsys_ingest for it instead")
    return {day: found[day] for day in days}
