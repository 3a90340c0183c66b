"""The day of a run. No other module looks at run dates or the clock.

A run works on one day, 24 hours UTC: the last complete day before its anchor. The anchor is the
run's logical date, or ``run_after`` if there is none (runs triggered by an asset, or by REST
without a date). The ``day`` of the trigger form takes precedence.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from recsys_ops.errors import SettingsError

BACKFILL = "backfill"
TASKS_TEST_PREFIX = "__airflow_temporary_run_"


class DagRunLike(Protocol):
    """The attributes of an Airflow DAG run that we read."""

    run_id: str
    run_type: Any
    logical_date: datetime | None
    run_after: datetime


def run_day(dag_run: DagRunLike, params: Mapping[str, Any]) -> date:
    """The day of a run: the form's ``day``, else the last complete UTC day before the anchor."""
    if params.get("day"):
        return date.fromisoformat(params["day"])
    anchor = dag_run.logical_date or dag_run.run_after
    return anchor.astimezone(UTC).date() - timedelta(days=1)


def first_day(dag_run: DagRunLike, params: Mapping[str, Any], lookback_days: int) -> date:
    """The first day that a run reads: ``lookback_days`` before its own day.

    The number in the trigger form takes precedence over the setting; a backfill reads only its day.
    """
    requested = params.get("lookback_days")
    default = 0 if is_backfill(dag_run) else lookback_days
    return run_day(dag_run, params) - timedelta(days=default if requested is None else requested)


def check_day_is_over(day: date, dag_run: DagRunLike) -> None:
    """Raises SettingsError unless the day is over and was over when the run was due.

    ``airflow tasks test`` accepts any date.
    """
    if day >= min(dag_run.run_after, datetime.now(UTC)).astimezone(UTC).date():
        raise SettingsError(f"day {day} is not over yet (UTC): trigger with an earlier day or wait")


def day_start(day: date) -> datetime:
    """The time at which a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def is_backfill(dag_run: DagRunLike) -> bool:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type)) == BACKFILL


def is_tasks_test(dag_run: DagRunLike) -> bool:
    """Whether it is the temporary run of ``airflow tasks test``."""
    return dag_run.run_id.startswith(TASKS_TEST_PREFIX)
