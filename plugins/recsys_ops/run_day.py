"""Which day a run is about. Nothing else looks at run dates or the clock.

A run works on one day, 24 h UTC: the last complete day before its anchor. The anchor is the run's logical date, or
``run_after`` where that is null (asset-triggered runs, REST triggers without a date). The trigger form's ``day`` wins.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from recsys_ops.errors import SettingsError

BACKFILL = "backfill"
TASKS_TEST_PREFIX = "__airflow_temporary_run_"


class DagRunLike(Protocol):
    """What we read of an Airflow DAG run."""

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
    """The first day a run reads: ``lookback_days`` before its own, the form's or the setting; a backfill reads only its own."""
    asked = params.get("lookback_days")
    default = 0 if is_backfill(dag_run) else lookback_days
    return run_day(dag_run, params) - timedelta(days=default if asked is None else asked)


def check_day_is_over(day: date, dag_run: DagRunLike) -> None:
    """Raises SettingsError unless the day was over when the run was due, and is over now: `tasks test` takes any date."""
    if day >= min(dag_run.run_after, datetime.now(UTC)).astimezone(UTC).date():
        raise SettingsError(f"day {day} is not over yet (UTC): trigger with an earlier day or wait")


def day_start(day: date) -> datetime:
    """The UTC instant at which a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def is_backfill(dag_run: DagRunLike) -> bool:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type)) == BACKFILL


def is_tasks_test(dag_run: DagRunLike) -> bool:
    """Whether the run is the throwaway one of ``airflow tasks test``."""
    return dag_run.run_id.startswith(TASKS_TEST_PREFIX)
