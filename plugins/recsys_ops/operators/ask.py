"""Choose the trials of a batch of a study."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class AskOperator(DayOperator):
    """Choose the trials of a batch; the first batch begins a new study.

    Returns the trials, over which `TrialOperator` is mapped. A cleared task returns the same trials
    while the settings are the same; after a change of the settings the study begins again.
    """

    def __init__(self, *, batch: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch

    @property
    def name(self) -> str:
        return f"ask_{self.batch}"

    def execute(self, context: "Context") -> Any:
        return super().execute(context)["trials"]

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.history.table import current_version
        from recsys_ops.tuning.records import begin_study, read_study, write_study
        from recsys_ops.tuning.study import ask

        storage = open_storage(settings)
        study = (
            begin_study(storage, day, settings, current_version(storage))
            if self.batch == 1
            else read_study(storage, day)
        )
        study = ask(study, self.batch, settings.tuning.batch_size)
        write_study(storage, day, study)
        return {
            "trials": [
                {"number": trial.number, "title": trial.title}
                for trial in study.of_batch(self.batch)
            ],
            "history_version": study.history_version,
        }
