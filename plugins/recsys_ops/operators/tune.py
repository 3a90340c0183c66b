"""A study of settings: a batch of trials is asked, tried and told, then the next; the best is proposed."""

import logging
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.errors import ModelError, SettingsError
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
    """Write down the trials of a batch, the first batch those of a new study; returns them for `TrialOperator` to be mapped over.

    Who asks again gets the same trials, as long as the settings are the same: others begin the study of the day anew.
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

        store = open_storage(settings)
        study = _begin(store, day, settings) if self.batch == 1 else read_study(store, day)
        study = ask(study, self.batch, settings.tuning.batch_size)
        store.write_json(paths.study(day, STUDY), study.model_dump(mode="json"))
        return {
            "trials": [
                {"number": trial.number, "title": trial.title}
                for trial in study.of_batch(self.batch)
            ],
            "history_version": study.history_version,
        }


class TrialOperator(TrainOnWorkerOperator):
    """Fit and score the settings of one trial on each of the study's days, a job a day, where `worker.launcher` says.

    It ends early when it falls behind the trials before. A day that has its result is not trained again.
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

        store = open_storage(settings)
        study = read_study(store, day)
        trial = study.trials[self.number]
        values: tuple[float, ...] = ()
        state = "complete"
        for held_out in study.plan.days:
            values = (*values, self._score(store, day, held_out, study, settings, context))
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
        store.write_json(paths.trial(day, self.number, _OUTCOME), outcome.model_dump(mode="json"))
        return {"trial": trial.title, "state": state, "values": list(values)}

    def _score(
        self,
        store: "Storage",
        day: date,
        held_out: date,
        study: "Study",
        settings: Settings,
        context: "Context",
    ) -> float:
        """NDCG of the trial on a day, from its job in the trial's own corner of the storage."""
        from scipy import sparse

        from recsys_ops.interactions.day_profile import profile_day
        from recsys_ops.interactions.matrix import build_interactions
        from recsys_ops.interactions.window import first_window_day
        from recsys_ops.lists.inputs import ListInputs
        from recsys_ops.models.files import RESULT
        from recsys_ops.models.spec import JobDraft, JobInputs, write_job
        from recsys_ops.operators.build_matrix import read_window
        from recsys_ops.tuning.study import applied

        own = corner(store, day, self.number)
        result = paths.job(held_out, RESULT)
        found = own.read_json(result) if own.exists(result) else None
        if found is None or found["status"] != "succeeded":
            plan = study.plan
            training, confidence = applied(
                plan.training, plan.confidence, study.trials[self.number].params
            )
            start = first_window_day(held_out, confidence)
            window = read_window(
                store, held_out, confidence, settings.cleaning.slow_bots, study.history_version
            )
            interactions = build_interactions(
                window.human_events, held_out, confidence, plan.evaluation
            )
            draft = JobDraft(
                purpose="score",
                day=held_out,
                confidence=confidence,
                training=training,
                evaluation=plan.evaluation,
                lists=settings.lists,
                history_version=study.history_version,
                window_start=start,
                data=profile_day(window.events, held_out, start, {}),
                price_per_hour=settings.worker.price_per_hour,
            )
            nothing = sparse.csr_matrix(interactions.full.shape, dtype="float32")
            inputs = JobInputs(
                replace(interactions, full=nothing),  # nothing is served
                interactions.items.is_not_null().to_numpy(),
                ListInputs.empty(len(interactions.items)),
            )
            write_job(own, draft, inputs)
            self.external_id_key = f"job_{held_out}"
            found = self.work_on(own, held_out, settings, context)
        return float(found["metrics"]["challenger"][f"ndcg@{study.plan.evaluation.cutoffs[-1]}"])


class TellOperator(DayOperator):
    """Note what came of a batch's trials, also of those that failed, and delete what they were fitted on.

    Fails when all of them failed, or the settings as they are, which the others are measured against.
    """

    def __init__(self, *, batch: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch

    @property
    def name(self) -> str:
        return f"tell_{self.batch}"

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.tuning.study import told

        store = open_storage(settings)
        study = read_study(store, day)
        study = told(
            study,
            {trial.number: _outcome(store, day, trial) for trial in study.of_batch(self.batch)},
        )
        store.write_json(paths.study(day, STUDY), study.model_dump(mode="json"))
        batch = study.of_batch(self.batch)
        for trial in batch:
            _delete_inputs(store, day, trial.number)
        if all(trial.state == "failed" for trial in batch):
            raise ModelError(
                f"no trial of batch {self.batch} was scored: their logs say why; clear those of them that may succeed"
            )
        if study.trials[0].state == "failed":
            raise ModelError(
                "trial 0, the settings as they are, was not scored: there is nothing to compare with; clear it"
            )
        return {
            "states": {f"{trial.number}": trial.state for trial in batch},
            "ndcg": {f"{t.number}": t.mean for t in batch},
        }


class ProposeOperator(DayOperator):
    """Compare the best trial with the settings as they are, and write the proposal; its lines for recsys.yaml are in the log."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        import yaml

        from recsys_ops.tuning.gain import best_gain
        from recsys_ops.tuning.study import applied, current

        store = open_storage(settings)
        study = read_study(store, day)
        plan = study.plan
        scores = _scores(store, day, study)
        gain = best_gain(scores, plan.training.seed)
        users = sum(map(len, scores[0]))
        best = study.trials[gain.trial]
        configured = current(settings.training, settings.confidence)
        proposed = current(*applied(plan.training, plan.confidence, best.params))
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
        store.write_json(paths.study(day, PROPOSAL), proposal)
        if proposal["better"]:
            log.info("for recsys.yaml:\n%s", yaml.safe_dump(changed, sort_keys=False))
        else:
            log.info(
                "nothing is proposed: with 95 % confidence none of the trials is better than the settings as they are"
            )
        told = ("better", "trial", "gain", "interval", "users", "trials", "complete")
        return {key: proposal[key] for key in told}


def corner(store: "Storage", day: date, number: int) -> "Storage":
    """Where the jobs of a trial lie, as in a storage of its own."""
    from recsys_ops.storage.objects import Storage

    return Storage(store.url(paths.trial(day, number, "")), store.account)


def read_study(store: "Storage", day: date) -> "Study":
    """Raises StorageError when there is none, ModelError when it is of another release."""
    from pydantic import ValidationError

    from recsys_ops.tuning.study import Study

    path = paths.study(day, STUDY)
    try:
        return Study.model_validate(store.read_json(path))
    except ValidationError as error:
        raise ModelError(
            f"{store.url(path)} is damaged, or of another release: delete it and clear the run's tasks"
        ) from error


def _begin(store: "Storage", day: date, settings: Settings) -> "Study":
    """The study of the day, if it is one of the same settings, else a new one; trials of earlier studies are deleted."""
    from recsys_ops.history.table import current_version
    from recsys_ops.tuning.study import Plan, Study

    if not settings.tuning.search:
        raise SettingsError(
            "tuning.search is empty: name the settings to be searched, as the recsys.yaml that comes with the package"
        )
    base, _ = with_adopted_proposal(store, settings, day)
    plan = Plan(
        days=tuple(day - timedelta(days=n) for n in range(settings.tuning.holdout_days)),
        training=base.training,
        confidence=base.confidence,
        evaluation=base.evaluation,
        search=settings.tuning.search,
    )
    if store.exists(paths.study(day, STUDY)):
        study = read_study(store, day)
        if study.plan.model_dump() == plan.model_dump():
            return study
        log.info("the study of %s was of other settings: it begins anew", day)
    for path in store.list(paths.STUDIES):
        earlier = "/trials/" in path and path < paths.study(day, "")  # ISO dates ascend as text
        if earlier or path.startswith(paths.study(day, "")):
            store.delete(path)
    return Study(plan=plan, history_version=current_version(store))


def _outcome(store: "Storage", day: date, trial: "Trial") -> "Trial":
    from recsys_ops.tuning.study import Trial

    path = paths.trial(day, trial.number, _OUTCOME)
    return (
        Trial.model_validate(store.read_json(path))
        if store.exists(path)
        else trial.model_copy(update={"state": "failed"})
    )


def _delete_inputs(store: "Storage", day: date, number: int) -> None:
    """They hold personal data, and a matrix a day."""
    from recsys_ops.models.files import LOG, NDCG, RESULT, SPEC

    own = corner(store, day, number)
    for path in own.list("jobs"):
        if path.rpartition("/")[2] not in (SPEC, RESULT, LOG, NDCG):
            own.delete(path)


def _scores(store: "Storage", day: date, study: "Study") -> "dict[int, list[NDArray[np.float64]]]":
    """By trial, those that are complete, and by day each user's NDCG."""
    import numpy as np

    from recsys_ops.models.files import NDCG
    from recsys_ops.storage import serialization

    found: dict[int, list[NDArray[np.float64]]] = {}
    users: dict[date, NDArray[np.int32]] = {}
    for trial in study.complete():
        for held_out in study.plan.days:
            scored = serialization.to_arrays(
                corner(store, day, trial.number).get(paths.job(held_out, NDCG))
            )
            if not np.array_equal(scored["users"], users.setdefault(held_out, scored["users"])):
                raise ModelError(
                    f"trial {trial.number} was scored on other users of {held_out} than trial 0: start the study anew"
                )
            found.setdefault(trial.number, []).append(scored["ndcg"])
    return found
