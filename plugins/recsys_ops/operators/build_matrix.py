"""Build the training job of the day: the user–item matrices and what the lists need."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class BuildMatrixOperator(DayOperator):
    """Turn the window of the history into matrices and write the job spec, which names the version.

    The job is pinned to the version of the history that the task has found.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.jobs.build import build_day_job

        return build_day_job(open_storage(settings), day, settings)
