"""What is tried next: a batch at a time, the same for the same record, starting with the settings as they are."""

import math
from datetime import date
from typing import Any

import numpy as np
import pytest

from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    SearchRange,
    TrainingSettings,
)
from recsys_ops.tuning.study import Plan, Study, Trial, applied, ask, current, falls_behind, told

SEARCH = {
    "training.factors": SearchRange(low=8, high=128, log=True),
    "training.regularization": SearchRange(low=0.001, high=1, log=True),
    "confidence.half_life_days": SearchRange(choices=(None, 30, 90)),
}


def study(**changes: Any) -> Study:
    plan = Plan(
        days=(date(2026, 3, 2), date(2026, 3, 1)),
        training=TrainingSettings(seed=7),
        confidence=ConfidenceSettings(),
        evaluation=EvaluationSettings(),
        search=SEARCH,
    )
    return Study(plan=plan.model_copy(update=changes), history_version=3)


def scored(asked: Study, batch: int) -> Study:
    """The batch's trials told; 48 factors are the best there is, and trial 2 fails."""

    def outcome(trial: Trial) -> Trial:
        if trial.number == 2:
            return trial.model_copy(update={"state": "failed"})
        factors = trial.params["training.factors"]
        assert factors is not None
        value = 1 - abs(math.log(factors / 48))
        return trial.model_copy(update={"state": "complete", "values": (value, value)})

    return told(asked, {trial.number: outcome(trial) for trial in asked.of_batch(batch)})


def test_the_first_trial_is_the_settings_as_they_are_and_each_is_named():
    first = ask(study(), 1, 3).trials
    assert first[0].params == {
        "training.factors": 64,
        "training.regularization": 0.1,
        "confidence.half_life_days": 90,
    }
    assert first[0].title == "0: as they are, half_life_days 90, factors 64, regularization 0.1"
    assert [trial.number for trial in first] == [0, 1, 2]
    assert all(trial.params.keys() == SEARCH.keys() and trial.state == "asked" for trial in first)
    assert len({trial.title.partition(":")[2] for trial in first}) == 3


def test_the_same_record_is_asked_on_with_the_same_trials_also_when_it_was_read_again():
    told_once = scored(ask(study(), 1, 3), 1)
    read_again = Study.model_validate_json(told_once.model_dump_json())
    assert read_again == told_once
    second = ask(told_once, 2, 3)
    assert ask(read_again, 2, 3) == second
    assert ask(second, 2, 3) == second
    assert (
        ask(study(training=TrainingSettings(seed=8)), 1, 3).trials[1:]
        != ask(study(), 1, 3).trials[1:]
    )


def test_the_search_goes_where_the_trials_before_were_good():
    found = study()
    for batch in range(1, 9):
        found = scored(ask(found, batch, 3), batch)
    values = [trial.mean for trial in found.complete() if trial.mean is not None]
    assert np.mean(values[-9:]) > np.mean(values[1:10]) + 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"training": TrainingSettings(factors=300)},
        {"confidence": ConfidenceSettings(half_life_days=45)},
        {
            "confidence": ConfidenceSettings(half_life_days=None),
            "search": {"confidence.half_life_days": SearchRange(low=9, high=99)},
        },
        {
            "training": TrainingSettings(regularization_exponent=0),
            "search": {"training.regularization_exponent": SearchRange(low=0.1, high=1, log=True)},
        },
    ],
)
def test_settings_outside_the_space_are_a_trial_all_the_same(changes: dict[str, Any]):
    given = study(**changes)
    asked = scored_all(ask(given, 1, 3))
    assert (
        asked.trials[0].params.items()
        <= current(given.plan.training, given.plan.confidence).items()
    )
    assert len(ask(asked, 2, 3).trials) == 6


def scored_all(asked: Study) -> Study:
    return told(
        asked,
        {
            t.number: t.model_copy(update={"state": "complete", "values": (0.1, 0.1)})
            for t in asked.trials
        },
    )


def test_a_trials_values_go_into_their_sections():
    training, confidence = applied(
        TrainingSettings(),
        ConfidenceSettings(),
        {"training.factors": 9, "confidence.half_life_days": None},
    )
    assert (training.factors, training.iterations) == (9, TrainingSettings().iterations)
    assert (confidence.half_life_days, confidence.alpha) == (None, ConfidenceSettings().alpha)


def test_a_trial_falls_behind_below_the_median_of_the_batches_before_on_the_same_days():
    values = [(0.1, 0.5), (0.2, 0.2), (0.3, 0.3), (0.9, 0.9)]
    before = [
        Trial(number=n, batch=1, params={}, state="complete" if n < 3 else "pruned", values=found)
        for n, found in enumerate(values)
    ]
    trial = Trial(number=4, batch=2, params={})
    found = study().model_copy(update={"trials": (*before, trial)})
    assert falls_behind(found, trial, (0.19,))
    assert not falls_behind(found, trial, (0.2,))
    assert falls_behind(found, trial, (0.3, 0.2))
    assert not falls_behind(found, trial, (0.0, 0.7))
    assert not falls_behind(found, before[0], (0.0,))


def test_failed_and_pruned_trials_are_no_hindrance():
    asked = ask(study(), 1, 4)
    states = {
        0: {"state": "complete", "values": (0.1, 0.2)},
        1: {"state": "pruned", "values": (0.05,)},
        2: {"state": "failed"},
        3: {"state": "asked"},
    }
    after = told(
        asked, {n: asked.trials[n].model_copy(update=state) for n, state in states.items()}
    )
    assert [trial.number for trial in after.complete()] == [0]
    assert len(ask(after, 2, 2).of_batch(2)) == 2
