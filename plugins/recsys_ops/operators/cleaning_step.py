"""One cleaning step: kept rows on to the next step, rejected rows to quarantine with their reasons."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class CleaningStepOperator(DayOperator):
    """Apply the step of `recsys_ops.steps` named like the task to what the step before it left of the day."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops import steps

        return steps.clean(storage(settings), self.name, day, settings.cleaning)
