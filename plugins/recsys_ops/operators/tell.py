"""Record the results of a batch of a study."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.errors import ModelError
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class TellOperator(DayOperator):
    """Record the results of a batch's trials, failed ones included, and delete their job inputs.

    Fails if all trials of the batch failed, or if trial 0 did: the current settings, with which
    the others are compared.
    """

    def __init__(self, *, batch: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch

    @property
    def name(self) -> str:
        return f"tell_{self.batch}"

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.tuning.records import (
            delete_trial_inputs,
            read_outcome,
            read_study,
            write_study,
        )
        from recsys_ops.tuning.study import with_outcomes

        storage = open_storage(settings)
        study = read_study(storage, day)
        outcomes = {
            trial.number: read_outcome(storage, day, trial) for trial in study.of_batch(self.batch)
        }
        study = with_outcomes(study, outcomes)
        write_study(storage, day, study)
        batch = study.of_batch(self.batch)
        for trial in batch:
            delete_trial_inputs(storage, day, trial.number)
        if all(trial.state == "failed" for trial in batch):
            raise ModelError(
                f"no trial of batch {self.batch} has a result: their logs say why; "
                "clear those that may succeed"
            )
        if study.trials[0].state == "failed":
            raise ModelError(
                "trial 0, the current settings, has no result, and there is nothing to compare "
                "with: clear it"
            )
        return {
            "states": {f"{trial.number}": trial.state for trial in batch},
            "ndcg": {f"{trial.number}": trial.mean for trial in batch},
        }
