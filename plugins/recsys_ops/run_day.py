"""The day of a run. No other module looks at run dates.

A run works on one day, 24 hours UTC: the last complete day before its anchor. The anchor is the
run's logical date, or ``run_after`` if there is none (runs triggered by an asset, or by REST
without a date). The ``day`` of the trigger form takes precedence.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any, Protocol

from recsys_ops.errors import SettingsError

BACKFILL = "backfill"
# no shop's events are older; a year or a century is often subtracted from a day
FIRST_DAY = date(2000, 1, 1)
TASKS_TEST_PREFIX = "__airflow_temporary_run_"


class DagRunLike(Protocol):
    """The attributes of an Airflow DAG run that we read."""

    run_id: str
    run_type: Any
    logical_date: datetime | None
    run_after: datetime


def run_day(dag_run: DagRunLike, params: Mapping[str, Any]) -> date:
    """The day of a run: the form's ``day``, else the last complete UTC day before the anchor.

    Raises SettingsError like `read_day`, and for an anchor of another millennium.
    """
    if params.get("day"):
        return read_day(params["day"])
    anchor = dag_run.logical_date or dag_run.run_after
    if anchor.date() <= FIRST_DAY:
        raise SettingsError(f"no run can be for {anchor.date()}: days begin with {FIRST_DAY}")
    return anchor.astimezone(UTC).date() - timedelta(days=1)


def read_day(text: str) -> date:
    """A day that a person has written. Raises SettingsError for what is no plausible day."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{text!r} is no day: write it as 2026-01-31") from error
    if not FIRST_DAY <= day < date(2100, 1, 1):
        raise SettingsError(f"{day} is no plausible day: days begin with {FIRST_DAY}")
    return day


def requested_lookback(dag_run: DagRunLike, params: Mapping[str, Any]) -> int | None:
    """How many days before its own a run was told to read; None leaves it to the settings.

    The number in the trigger form takes precedence; a backfill reads only its day.
    """
    requested: int | None = params.get("lookback_days")
    return 0 if requested is None and is_backfill(dag_run) else requested


def check_day_is_over(day: date, dag_run: DagRunLike) -> None:
    """Raises SettingsError unless the day is over and was over when the run was due.

    ``airflow tasks test`` accepts any date.
    """
    if day >= min(dag_run.run_after, datetime.now(UTC)).astimezone(UTC).date():
        raise SettingsError(f"day {day} is not over yet (UTC): trigger with an earlier day or wait")


def day_start(day: date) -> datetime:
    """The time at which a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def days_between(first: date, last: date) -> list[date]:
    """The days first … last; none if the first is later."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def stretches(days: Sequence[date]) -> list[tuple[date, date]]:
    """The first and last day of each stretch of adjoining days; `days` ascend."""
    groups = groupby(enumerate(days), key=lambda pair: pair[1] - timedelta(days=pair[0]))
    adjoining = [[day for _, day in stretch] for _, stretch in groups]
    return [(stretch[0], stretch[-1]) for stretch in adjoining]


def format_days(days: Sequence[date]) -> str:
    """Ascending days for a message, adjoining ones as a range."""
    ranges = [
        f"{first}" if first == last else f"{first} … {last}" for first, last in stretches(days)
    ]
    return ", ".join(ranges)


def is_backfill(dag_run: DagRunLike) -> bool:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type)) == BACKFILL


def is_tasks_test(dag_run: DagRunLike) -> bool:
    """Whether it is the temporary run of ``airflow tasks test``."""
    return dag_run.run_id.startswith(TASKS_TEST_PREFIX)
