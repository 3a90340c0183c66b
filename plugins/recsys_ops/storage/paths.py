"""The paths of all objects, relative to the storage root. No other module builds a path."""

from datetime import date

HISTORY = "history"
LIVE = "models/live.json"
STUDIES = "tuning"


def raw(day: date) -> str:
    """The rows as the database delivered them."""
    return f"raw/day={day}/events.parquet"


def catalogue(day: date) -> str:
    return f"catalogue/day={day}/products.parquet"


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
