"""One cleaning step: kept rows go on to the next step, rejected rows into the quarantine."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class CleaningStepOperator(DayOperator):
    """Apply the cleaning step of the task's name to the rows that the step before it has kept.

    The steps are in `recsys_ops.ingest.clean_day`.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.ingest.clean_day import run_step

        return run_step(open_storage(settings), self.name, day, settings.cleaning)
