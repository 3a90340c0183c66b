"""A study: the record of its trials, and the next trials, the same for the same record."""

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

_INTEGERS = ("training.factors", "training.iterations")
_RANDOM_TRIALS = 3  # before the search is directed, and before a trial may be pruned


class Trial(BaseModel):
    """One choice of settings.

    params : the values of the searched settings
    values : NDCG on each of the study's days, in their order; of a pruned trial only on the first
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
        """The trial in words, such as ``7: factors 96, alpha 11.3``."""
        values = (
            f"{name.partition('.')[2]} {_short(value)}" for name, value in self.params.items()
        )
        return f"{self.number}: {'as they are, ' if self.number == 0 else ''}{', '.join(values)}"


class Plan(BaseModel):
    """The settings of a study from beginning to end, even if recsys.yaml changes meanwhile.

    days : each is held out once, the newest first
    search : the search space, by the name of the setting
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: tuple[date, ...]
    training: TrainingSettings
    confidence: ConfidenceSettings
    evaluation: EvaluationSettings
    search: dict[SearchedName, SearchRange]


class Study(BaseModel):
    """The record of a study. Trial 0 has the current settings; the others are compared with it.

    history_version : the version of the history that all its matrices are built from
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan
    history_version: int
    trials: tuple[Trial, ...] = ()

    def of_batch(self, batch: int) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.batch == batch)

    def complete(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state == "complete")


def searchable_values(training: TrainingSettings, confidence: ConfidenceSettings) -> Params:
    """The values of all settings that may be searched."""
    sections = {"training": training, "confidence": confidence}
    return {
        name: getattr(sections[name.partition(".")[0]], name.partition(".")[2])
        for name in get_args(SearchedName)
    }


def with_values(
    training: TrainingSettings,
    confidence: ConfidenceSettings,
    params: Mapping[str, int | float | None],
) -> tuple[TrainingSettings, ConfidenceSettings]:
    """The two sections with the values of a trial."""

    def values_of(section: str) -> dict[str, int | float | None]:
        return {
            name.partition(".")[2]: value
            for name, value in params.items()
            if name.startswith(f"{section}.")
        }

    return (
        training.model_copy(update=values_of("training")),
        confidence.model_copy(update=values_of("confidence")),
    )


def ask(study: Study, batch: int, size: int) -> Study:
    """The study with the trials of a batch of `size`; unchanged if it has them already.

    The trials come from a tree-structured Parzen estimator (Bergstra et al. 2011) over all settings
    together. A trial of the batch that has no value yet counts as a bad one, so that the others
    differ from it. The space is extended to include the current settings.
    """
    if study.of_batch(batch):
        return study
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = study.plan
    current = searchable_values(plan.training, plan.confidence)
    space: dict[str, BaseDistribution] = {
        name: _distribution(name, searched, current[name])
        for name, searched in sorted(plan.search.items())
    }
    sampler = optuna.samplers.TPESampler(
        seed=plan.training.seed + len(study.trials),
        n_startup_trials=_RANDOM_TRIALS,
        multivariate=True,
        constant_liar=True,
    )
    optuna_study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in study.trials:
        optuna_study.add_trial(_frozen(trial, space))
    asked: list[Trial] = []
    for number in range(len(study.trials), len(study.trials) + size):
        if number == 0:
            params: Params = {name: current[name] for name in space}
            optuna_study.add_trial(_frozen(Trial(number=0, batch=batch, params=params), space))
        else:
            params = optuna_study.ask(space).params
        asked.append(Trial(number=number, batch=batch, params=params))
    return study.model_copy(update={"trials": (*study.trials, *asked)})


def falls_behind(study: Study, trial: Trial, values: tuple[float, ...]) -> bool:
    """Whether a trial with these values on the first days can be pruned.

    It can if their mean is below the median of the same mean over the complete trials of earlier
    batches (Golovin et al. 2017), and if there are at least three of these.
    """
    others = [
        np.mean(other.values[: len(values)])
        for other in study.complete()
        if other.batch < trial.batch
    ]
    return len(others) >= _RANDOM_TRIALS and bool(np.mean(values) < np.median(others))


def with_outcomes(study: Study, outcomes: Mapping[int, Trial]) -> Study:
    """The study with some of its trials replaced, by number."""
    return study.model_copy(
        update={"trials": tuple(outcomes.get(trial.number, trial) for trial in study.trials)}
    )


def _distribution(
    name: SearchedName, searched: SearchRange, value: int | float | None
) -> BaseDistribution:
    """The search space of one setting, extended to include its current value."""
    if searched.choices:
        return CategoricalDistribution([*searched.choices, *({value} - {*searched.choices})])
    assert searched.low is not None and searched.high is not None
    included = searched.low if value is None else value
    low, high = min(searched.low, included), max(searched.high, included)
    if searched.log and low <= 0:  # a logarithmic space cannot include 0
        low = searched.low
    if name in _INTEGERS:
        return IntDistribution(int(low), int(high), log=searched.log)
    return FloatDistribution(low, high, log=searched.log)


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    # values outside the space, null or 0 in a logarithmic one, are left out
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
