"""The paths of all objects, relative to the storage root. No other module builds a path."""

import re
from datetime import date
from typing import NamedTuple

RAW = "raw"  # the rows as the database delivered them
CATALOGUE = "catalogue"
HISTORY = "history"
LIVE = "models/live.json"
STUDIES = "tuning"


class DayPath(NamedTuple):
    """The parts of ``<kind>/day=<day>/<name>``."""

    kind: str
    day: date
    name: str


def parse(path: str) -> DayPath | None:
    """The parts of a path of a day; None for any other path, such as a file of another program."""
    match = re.fullmatch(r"([^/]+)/day=(\d{4}-\d\d-\d\d)/(.+)", path)
    try:
        return match and DayPath(match[1], date.fromisoformat(match[2]), match[3])
    except ValueError:  # no date, such as 2026-02-30
        return None


def of_day(kind: str, day: date) -> str:
    """The folder of a day."""
    return f"{kind}/day={day}"


def generation(kind: str, day: date, number: int, digest: str) -> str:
    """A delivery (`RAW`) or a catalogue (`CATALOGUE`) of a day, see `storage.generations`."""
    return f"{of_day(kind, day)}/{number:06d}-{digest}.parquet"


def step(name: str, day: date) -> str:
    """The rows that a cleaning step kept, or the indices of those that it rejected."""
    return f"cleaning/day={day}/{name}.parquet"


def quarantine(name: str, day: date) -> str:
    """The rows that a cleaning step rejected, each with its reason."""
    return f"quarantine/day={day}/{name}.parquet"


def encoded(day: date) -> str:
    """The encoded day: a cache, written again where it is missing."""
    return f"encoded/day={day}/events.parquet"


def report(name: str, day: date) -> str:
    """The figures of a task."""
    return f"reports/day={day}/{name}.json"


def day_counts(name: str, day: date) -> str:
    """What a cleaning step saw and rejected, counted by day."""
    return f"reports/day={day}/{name}_by_day.json"


def job(day: date, name: str) -> str:
    """The inputs that `build_matrix` writes for the worker, and the worker's files."""
    return f"jobs/day={day}/{name}"


def study(day: date, name: str) -> str:
    """The plan, the results and the proposal of a `recsys_tune` study."""
    return f"{STUDIES}/day={day}/{name}"


def trial(day: date, number: int, name: str) -> str:
    """The files of a study's trial. ``trial(day, number, "")`` is the storage root of its jobs."""
    return study(day, f"trials/{number}/{name}")


def model(version: str, name: str) -> str:
    """A file of a model version."""
    return f"models/{version}/{name}"
