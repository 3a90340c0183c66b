"""The clean rows of the days that were read, into the history in one atomic commit."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths
from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class CommitHistoryOperator(DayOperator):
    """Replace in the history all days that the run read with what the step `reads` left of them."""

    def __init__(self, *, reads: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reads = reads

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops import history

        store = storage(settings)
        events, metadata = store.read_parquet_with_metadata(paths.step(self.reads, day))
        version = history.replace_days(store, events, date.fromisoformat(metadata["first_day"]), day)
        return {"rows": events.height, "first_day": metadata["first_day"], "history_version": version}
