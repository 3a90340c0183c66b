"""The files of a study in storage: the study itself, its trials' outcomes and their scores."""

import logging
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys_ops.errors import DamagedError, ModelError, SettingsError
from recsys_ops.models.files import LOG, NDCG, RESULT, SPEC
from recsys_ops.settings import Settings
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.tuning.proposal import with_adopted_proposal
from recsys_ops.tuning.study import Plan, Study, Trial

log = logging.getLogger(__name__)

_STUDY, _OUTCOME = "study.json", "outcome.json"


def begin_study(storage: Storage, day: date, settings: Settings, history_version: int) -> Study:
    """The study of the day if its settings are the current ones, else a new study.

    A new study deletes the old study of the day and the trials of earlier studies.

    Raises SettingsError if the settings name nothing to search.
    """
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
    if storage.exists(paths.study(day, _STUDY)):
        study = read_study(storage, day)
        if study.plan.model_dump() == plan.model_dump():
            return study
        log.info("the study of %s has other settings: it begins again", day)
    for path in storage.list(paths.STUDIES):
        parts = paths.parse(path)
        if parts and (parts.day == day or (parts.day < day and parts.name.startswith("trials/"))):
            storage.delete(path)
    return Study(plan=plan, history_version=history_version)


def read_study(storage: Storage, day: date) -> Study:
    """The study of a day.

    Raises StorageError if there is none, ModelError if it is damaged or of another release.
    """
    path = paths.study(day, _STUDY)
    try:
        return Study.model_validate(storage.read_json(path))
    except ValidationError as error:
        raise ModelError(
            f"{storage.url(path)} is damaged or of another release: "
            "delete it and clear the run's tasks"
        ) from error


def write_study(storage: Storage, day: date, study: Study) -> None:
    storage.write_json(paths.study(day, _STUDY), study.model_dump(mode="json"))


def read_outcome(storage: Storage, day: date, trial: Trial) -> Trial:
    """A trial with its results; failed if it has left none, or damaged ones."""
    path = paths.trial(day, trial.number, _OUTCOME)
    failed = trial.model_copy(update={"state": "failed"})
    if not storage.exists(path):
        return failed
    try:
        return Trial.model_validate(storage.read_record(path))
    except (DamagedError, ValidationError):
        log.warning("%s is damaged: trial %d counts as failed", storage.url(path), trial.number)
        return failed


def write_outcome(storage: Storage, day: date, trial: Trial) -> None:
    storage.write_json(paths.trial(day, trial.number, _OUTCOME), trial.model_dump(mode="json"))


def open_trial_storage(storage: Storage, day: date, number: int) -> Storage:
    """The storage of a trial, in which its jobs lie."""
    return Storage(storage.url(paths.trial(day, number, "")), storage.account)


def delete_trial_inputs(storage: Storage, day: date, number: int) -> None:
    """Delete the inputs of a trial's jobs: personal data, and the matrices of each day."""
    trial_storage = open_trial_storage(storage, day, number)
    for path in trial_storage.list("jobs"):
        if path.rpartition("/")[2] not in (SPEC, RESULT, LOG, NDCG):
            trial_storage.delete(path)


def read_scores(storage: Storage, day: date, study: Study) -> dict[int, list[NDArray[np.float64]]]:
    """Each user's NDCG, by complete trial and held-out day.

    Raises ModelError if the trials were evaluated for different users.
    """
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
