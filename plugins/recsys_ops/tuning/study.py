"""A study: its trials as a plain record, and what to try next; the same record is asked on with the same answer."""

from collections.abc import Mapping
from datetime import date
from typing import Literal, get_args

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    SearchedName,
    SearchRange,
    TrainingSettings,
)

# by name such as training.factors
Params = dict[str, int | float | None]

_WHOLE = ("training.factors", "training.iterations")
_AT_RANDOM = 3  # trials before the search is directed, and before any is given up


class Trial(BaseModel):
    """One choice of settings.

    values : NDCG on each of the study's days, in their order; of a pruned trial on the first of them
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    batch: int
    params: Params
    state: Literal["asked", "complete", "pruned", "failed"] = "asked"
    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def title(self) -> str:
        """The trial in words: ``7: factors 96, alpha 11.3``."""
        values = (
            f"{name.partition('.')[2]} {_short(value)}" for name, value in self.params.items()
        )
        return f"{self.number}: {'as they are, ' if self.number == 0 else ''}{', '.join(values)}"


class Plan(BaseModel):
    """What a study goes by from its beginning to its end, whatever becomes of the settings meanwhile.

    days : held out one by one, the newest first
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: tuple[date, ...]
    training: TrainingSettings
    confidence: ConfidenceSettings
    evaluation: EvaluationSettings
    search: dict[SearchedName, SearchRange]


class Study(BaseModel):
    """The record. Trial 0 is the settings as they are: what the others are measured against.

    history_version : of all its matrices
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan
    history_version: int
    trials: tuple[Trial, ...] = ()

    def of_batch(self, batch: int) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.batch == batch)

    def complete(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state == "complete")


def current(training: TrainingSettings, confidence: ConfidenceSettings) -> Params:
    """Everything that may be searched, as it is set."""
    sections = {"training": training, "confidence": confidence}
    return {
        name: getattr(sections[name.partition(".")[0]], name.partition(".")[2])
        for name in get_args(SearchedName)
    }


def applied(
    training: TrainingSettings,
    confidence: ConfidenceSettings,
    params: Mapping[str, int | float | None],
) -> tuple[TrainingSettings, ConfidenceSettings]:
    """The sections with a trial's values in place of theirs."""

    def of(section: str) -> dict[str, int | float | None]:
        return {
            name.partition(".")[2]: value
            for name, value in params.items()
            if name.startswith(f"{section}.")
        }

    return training.model_copy(update=of("training")), confidence.model_copy(
        update=of("confidence")
    )


def ask(study: Study, batch: int, size: int) -> Study:
    """The study with the trials of a batch; one that has them already is returned as it is.

    Tree-structured Parzen estimator (Bergstra et al. 2011), all settings together; a trial of the batch that has no value yet
    counts as a bad one, so that the others are asked elsewhere. The settings as they are lie within the space, wherever its
    bounds are.
    """
    if study.of_batch(batch):
        return study
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = study.plan
    known = current(plan.training, plan.confidence)
    space: dict[str, BaseDistribution] = {
        name: _distribution(name, searched, known[name])
        for name, searched in sorted(plan.search.items())
    }
    sampler = optuna.samplers.TPESampler(
        seed=plan.training.seed + len(study.trials),
        n_startup_trials=_AT_RANDOM,
        multivariate=True,
        constant_liar=True,
    )
    found = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in study.trials:
        found.add_trial(_frozen(trial, space))
    asked: list[Trial] = []
    for number in range(len(study.trials), len(study.trials) + size):
        if number == 0:
            params: Params = {name: known[name] for name in space}
            found.add_trial(_frozen(Trial(number=0, batch=batch, params=params), space))
        else:
            params = found.ask(space).params
        asked.append(Trial(number=number, batch=batch, params=params))
    return study.model_copy(update={"trials": (*study.trials, *asked)})


def falls_behind(study: Study, trial: Trial, values: tuple[float, ...]) -> bool:
    """Whether a trial with these values on the first days need not be scored on the rest.

    So it is when their mean is below the median of what the complete trials of the batches before had there (Golovin et al.
    2017), provided there are enough of them.
    """
    others = [
        np.mean(other.values[: len(values)])
        for other in study.complete()
        if other.batch < trial.batch
    ]
    return len(others) >= _AT_RANDOM and bool(np.mean(values) < np.median(others))


def told(study: Study, outcomes: Mapping[int, Trial]) -> Study:
    """The study with what came of some of its trials."""
    return study.model_copy(
        update={"trials": tuple(outcomes.get(trial.number, trial) for trial in study.trials)}
    )


def _distribution(
    name: SearchedName, searched: SearchRange, value: int | float | None
) -> BaseDistribution:
    """The space of one setting, and its value as it is, which may lie outside."""
    if searched.choices:
        return CategoricalDistribution([*searched.choices, *({value} - {*searched.choices})])
    assert searched.low is not None and searched.high is not None
    known = searched.low if value is None else value
    low, high = min(searched.low, known), max(searched.high, known)
    if searched.log and low <= 0:  # 0 of a search by factors
        low = searched.low
    if name in _WHOLE:
        return IntDistribution(int(low), int(high), log=searched.log)
    return FloatDistribution(low, high, log=searched.log)


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    # what is not within the space (null, or 0 where it is searched by factors) is left out
    params = {name: value for name, value in trial.params.items() if _within(value, space[name])}
    means = {day: float(np.mean(trial.values[: day + 1])) for day in range(len(trial.values))}
    states = {
        "asked": TrialState.RUNNING,
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    return optuna.create_trial(
        state=states[trial.state],
        value=float(np.mean(trial.values)) if trial.state == "complete" else None,
        params=params,
        distributions={name: space[name] for name in params},
        intermediate_values=means,
    )


def _within(value: int | float | None, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return True
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return value is not None and distribution.low <= value <= distribution.high


def _short(value: int | float | None) -> str:
    return str(value) if value is None or isinstance(value, int) else f"{value:.3g}"
