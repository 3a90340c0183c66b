"""Run one trial of a study: fit and evaluate its settings on the study's days."""

import logging
from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.models.files import RESULT
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context

    from recsys_ops.storage.objects import Storage
    from recsys_ops.tuning.study import Study

log = logging.getLogger(__name__)


class TrialOperator(TrainOnWorkerOperator):
    """Fit and evaluate the settings of one trial on each day of the study, with a job for each day.

    The jobs run where `worker.launcher` says. The trial ends early when it falls behind the earlier
    trials. A day that has a result is not trained again.
    """

    def __init__(self, *, number: int, title: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number
        self.title = title

    @property
    def name(self) -> str:
        return f"trial_{self.number}"

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.tuning.records import read_study, write_outcome
        from recsys_ops.tuning.study import falls_behind

        storage = open_storage(settings)
        study = read_study(storage, day)
        trial, cutoff = study.trials[self.number], study.plan.evaluation.cutoffs[-1]
        values: tuple[float, ...] = ()
        state = "complete"
        for held_out in study.plan.days:
            values = (*values, self._ndcg(storage, day, held_out, study, settings, context))
            log.info("%s: ndcg@%d=%.4f on %s", trial.title, cutoff, values[-1], held_out)
            if len(values) < len(study.plan.days) and falls_behind(study, trial, values):
                state = "pruned"
                break
        write_outcome(storage, day, trial.model_copy(update={"state": state, "values": values}))
        return {"trial": trial.title, "state": state, "values": list(values)}

    def _ndcg(
        self,
        storage: "Storage",
        day: date,
        held_out: date,
        study: "Study",
        settings: Settings,
        context: "Context",
    ) -> float:
        """The trial's mean NDCG on a held-out day, from a job in the trial's own storage."""
        from recsys_ops.jobs.build import build_trial_job
        from recsys_ops.tuning.records import open_trial_storage
        from recsys_ops.tuning.study import with_values

        trial_storage, plan = open_trial_storage(storage, day, self.number), study.plan
        path = paths.job(held_out, RESULT)
        result = trial_storage.read_json(path) if trial_storage.exists(path) else None
        if not isinstance(result, dict) or result.get("status") != "succeeded":
            params = study.trials[self.number].params
            training, confidence = with_values(plan.training, plan.confidence, params)
            build_trial_job(
                storage,
                trial_storage,
                held_out,
                settings,
                training=training,
                confidence=confidence,
                evaluation=plan.evaluation,
                history_version=study.history_version,
            )
            self.external_id_key = f"job_{held_out}"
            result = self.run_job(trial_storage, held_out, settings, context)
        return float(result["metrics"]["challenger"][f"ndcg@{plan.evaluation.cutoffs[-1]}"])
