"""Tell the other DAGs that the history has a new day."""

from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import is_backfill
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class AnnounceDayOperator(DayOperator):
    """Succeed, so that Airflow records an event of the task's outlets.

    For a backfilled day the task is skipped and Airflow records no event.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        if is_backfill(context["dag_run"]):
            raise AirflowSkipException(f"day {day} was backfilled: no retraining is started for it")
        return {"announced": str(day)}
