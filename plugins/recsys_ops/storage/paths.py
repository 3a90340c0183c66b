"""Where a day's or a version's objects lie, relative to the storage root. Nothing else builds a path."""

from datetime import date

HISTORY = "history"
LIVE = "models/live.json"
STUDIES = "tuning"


def raw(day: date) -> str:
    return f"raw/day={day}/events.parquet"


def catalogue(day: date) -> str:
    return f"catalogue/day={day}/products.parquet"


def step(name: str, day: date) -> str:
    """The rows a cleaning step kept."""
    return f"cleaning/day={day}/{name}.parquet"


def quarantine(name: str, day: date) -> str:
    """The rows a cleaning step rejected, each with its reason."""
    return f"quarantine/day={day}/{name}.parquet"


def coded(day: date) -> str:
    """The day's events as integer codes: a cache, made again where it is missing."""
    return f"coded/day={day}/events.parquet"


def report(name: str, day: date) -> str:
    """A task's figures of the day."""
    return f"reports/day={day}/{name}.json"


def job(day: date, name: str) -> str:
    """What `build_matrix` hands to the worker; the worker's checkpoints, log and result."""
    return f"jobs/day={day}/{name}"


def study(day: date, name: str) -> str:
    """What `recsys_tune` has asked, what came of it, and what it proposes."""
    return f"{STUDIES}/day={day}/{name}"


def trial(day: date, number: int, name: str) -> str:
    """What a study's trial has; its jobs lie below ``trial(day, number, "")`` as those of a storage of its own."""
    return study(day, f"trials/{number}/{name}")


def model(version: str, name: str) -> str:
    return f"models/{version}/{name}"
