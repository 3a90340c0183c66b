"""One cleaning step: kept rows on to the next step, rejected rows to quarantine with their reasons."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class CleaningStepOperator(DayOperator):
    """Apply the step of `recsys_ops.ingest.clean_day` named like the task to what the step before it left of the day."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.ingest.clean_day import run_step

        return run_step(open_storage(settings), self.name, day, settings.cleaning)
