"""A study of settings: ask for trials, run them, tell their results; at the end propose."""

import logging
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.errors import ModelError, SettingsError
from recsys_ops.models.files import LOG, NDCG, RESULT, SPEC
from recsys_ops.operators.base import DayOperator
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import Settings
from recsys_ops.storage import paths
from recsys_ops.tuning.proposal import PROPOSAL, with_adopted_proposal

if TYPE_CHECKING:
    import numpy as np
    from airflow.sdk import Context
    from numpy.typing import NDArray

    from recsys_ops.storage.objects import Storage
    from recsys_ops.tuning.study import Study, Trial

log = logging.getLogger(__name__)

STUDY = "study.json"
_OUTCOME = "outcome.json"


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
        from recsys_ops.tuning.study import ask

        storage = open_storage(settings)
        study = (
            _begin_study(storage, day, settings) if self.batch == 1 else read_study(storage, day)
        )
        study = ask(study, self.batch, settings.tuning.batch_size)
        storage.write_json(paths.study(day, STUDY), study.model_dump(mode="json"))
        return {
            "trials": [
                {"number": trial.number, "title": trial.title}
                for trial in study.of_batch(self.batch)
            ],
            "history_version": study.history_version,
        }


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
        from recsys_ops.tuning.study import falls_behind

        storage = open_storage(settings)
        study = read_study(storage, day)
        trial = study.trials[self.number]
        values: tuple[float, ...] = ()
        state = "complete"
        for held_out in study.plan.days:
            values = (*values, self._ndcg(storage, day, held_out, study, settings, context))
            log.info(
                "%s: ndcg@%d=%.4f on %s",
                trial.title,
                study.plan.evaluation.cutoffs[-1],
                values[-1],
                held_out,
            )
            if len(values) < len(study.plan.days) and falls_behind(study, trial, values):
                state = "pruned"
                break
        outcome = trial.model_copy(update={"state": state, "values": values})
        storage.write_json(paths.trial(day, self.number, _OUTCOME), outcome.model_dump(mode="json"))
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
        from recsys_ops.tuning.study import with_values

        trial_storage, plan = open_trial_storage(storage, day, self.number), study.plan
        path = paths.job(held_out, RESULT)
        result = trial_storage.read_json(path) if trial_storage.exists(path) else None
        if result is None or result["status"] != "succeeded":
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
        from recsys_ops.tuning.study import with_outcomes

        storage = open_storage(settings)
        study = read_study(storage, day)
        outcomes = {
            trial.number: _read_outcome(storage, day, trial) for trial in study.of_batch(self.batch)
        }
        study = with_outcomes(study, outcomes)
        storage.write_json(paths.study(day, STUDY), study.model_dump(mode="json"))
        batch = study.of_batch(self.batch)
        for trial in batch:
            _delete_inputs(storage, day, trial.number)
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


class ProposeOperator(DayOperator):
    """Compare the best trial with the current settings and write the proposal.

    The log shows the lines for `recsys.yaml`, if the gain is certain enough.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        import yaml

        from recsys_ops.tuning.gain import best_gain
        from recsys_ops.tuning.study import searchable_values, with_values

        storage = open_storage(settings)
        study = read_study(storage, day)
        plan = study.plan
        scores = _read_scores(storage, day, study)
        gain = best_gain(scores, plan.training.seed)
        users = sum(map(len, scores[0]))
        best = study.trials[gain.trial]
        configured = searchable_values(settings.training, settings.confidence)
        proposed = searchable_values(*with_values(plan.training, plan.confidence, best.params))
        changed: dict[str, dict[str, Any]] = {}
        for name, value in proposed.items():
            if value != configured[name]:
                section, _, key = name.partition(".")
                changed.setdefault(section, {})[key] = value
        proposal = {
            "better": gain.lower > 0 and users >= settings.gate.min_users,
            "trial": gain.trial,
            "metric": f"ndcg@{plan.evaluation.cutoffs[-1]}",
            "ndcg": {"current": study.trials[0].mean, "proposed": best.mean},
            "gain": gain.mean,
            "interval": [gain.lower, gain.upper],
            "users": users,
            "days": plan.days,
            "trials": len(study.trials),
            "complete": len(scores),
            "settings": changed,
            "configured": configured,
        }
        storage.write_json(paths.study(day, PROPOSAL), proposal)
        if proposal["better"]:
            log.info("for recsys.yaml:\n%s", yaml.safe_dump(changed, sort_keys=False))
        else:
            log.info(
                "nothing is proposed: no trial is better than the current settings "
                "with 95 % confidence"
            )
        figures = ("better", "trial", "gain", "interval", "users", "trials", "complete")
        return {key: proposal[key] for key in figures}


def open_trial_storage(storage: "Storage", day: date, number: int) -> "Storage":
    """The storage of a trial, in which its jobs lie."""
    from recsys_ops.storage.objects import Storage

    return Storage(storage.url(paths.trial(day, number, "")), storage.account)


def read_study(storage: "Storage", day: date) -> "Study":
    """The study of a day.

    Raises StorageError if there is none, ModelError if it is damaged or of another release.
    """
    from pydantic import ValidationError

    from recsys_ops.tuning.study import Study

    path = paths.study(day, STUDY)
    try:
        return Study.model_validate(storage.read_json(path))
    except ValidationError as error:
        raise ModelError(
            f"{storage.url(path)} is damaged or of another release: "
            "delete it and clear the run's tasks"
        ) from error


def _begin_study(storage: "Storage", day: date, settings: Settings) -> "Study":
    """The study of the day if its settings are the current ones, else a new study.

    A new study deletes the old study of the day and the trials of earlier studies.
    """
    from recsys_ops.history.table import current_version
    from recsys_ops.tuning.study import Plan, Study

    if not settings.tuning.search:
        raise SettingsError(
            "tuning.search is empty: name the settings to search, "
            "like the recsys.yaml that comes with the package"
        )
    base, _ = with_adopted_proposal(storage, settings, day)
    plan = Plan(
        days=tuple(day - timedelta(days=age) for age in range(settings.tuning.holdout_days)),
        training=base.training,
        confidence=base.confidence,
        evaluation=base.evaluation,
        search=settings.tuning.search,
    )
    if storage.exists(paths.study(day, STUDY)):
        study = read_study(storage, day)
        if study.plan.model_dump() == plan.model_dump():
            return study
        log.info("the study of %s has other settings: it begins again", day)
    for path in storage.list(paths.STUDIES):
        # ISO dates sort as text
        is_earlier_trial = "/trials/" in path and path < paths.study(day, "")
        if is_earlier_trial or path.startswith(paths.study(day, "")):
            storage.delete(path)
    return Study(plan=plan, history_version=current_version(storage))


def _read_outcome(storage: "Storage", day: date, trial: "Trial") -> "Trial":
    """A trial with its results; failed if it has left none."""
    from recsys_ops.tuning.study import Trial

    path = paths.trial(day, trial.number, _OUTCOME)
    if not storage.exists(path):
        return trial.model_copy(update={"state": "failed"})
    return Trial.model_validate(storage.read_json(path))


def _delete_inputs(storage: "Storage", day: date, number: int) -> None:
    """Delete the inputs of a trial's jobs: personal data, and the matrices of each day."""
    trial_storage = open_trial_storage(storage, day, number)
    for path in trial_storage.list("jobs"):
        if path.rpartition("/")[2] not in (SPEC, RESULT, LOG, NDCG):
            trial_storage.delete(path)


def _read_scores(
    storage: "Storage", day: date, study: "Study"
) -> "dict[int, list[NDArray[np.float64]]]":
    """Each user's NDCG, by complete trial and held-out day.

    Raises ModelError if the trials were evaluated for different users.
    """
    import numpy as np

    from recsys_ops.storage import serialization

    scores: dict[int, list[NDArray[np.float64]]] = {}
    users: dict[date, NDArray[np.int32]] = {}
    for trial in study.complete():
        trial_storage = open_trial_storage(storage, day, trial.number)
        for held_out in study.plan.days:
            arrays = serialization.to_arrays(trial_storage.get(paths.job(held_out, NDCG)))
            if not np.array_equal(arrays["users"], users.setdefault(held_out, arrays["users"])):
                raise ModelError(
                    f"trial {trial.number} was evaluated for other users of {held_out} than "
                    "trial 0: start a new study"
                )
            scores.setdefault(trial.number, []).append(arrays["ndcg"])
    return scores
