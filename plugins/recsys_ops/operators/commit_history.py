"""Write the clean rows of a run into the history, in one atomic commit."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator, accept_reason
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class CommitHistoryOperator(DayOperator):
    """Replace the days that the run has read in the history by the rows that cleaning has kept.

    Refused when a day would lose rows, unless the trigger form has an `accept_reason`.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.ingest.commit import commit_run

        return commit_run(
            open_storage(settings),
            day,
            context["dag_run"].run_id,
            min_kept_share=settings.source.min_kept_share,
            reason=accept_reason(context),
        )
