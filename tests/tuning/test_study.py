"""The next trials: a batch at a time, the same for the same record, first the current settings."""

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
from recsys_ops.tuning.study import (
    Plan,
    Study,
    Trial,
    ask,
    falls_behind,
    searchable_values,
    with_outcomes,
    with_values,
)

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
    """With outcomes for a batch's trials: 48 factors are the best, and trial 2 fails."""

    def outcome(trial: Trial) -> Trial:
        if trial.number == 2:
            return trial.model_copy(update={"state": "failed"})
        factors = trial.params["training.factors"]
        assert factors is not None
        value = 1 - abs(math.log(factors / 48))
        return trial.model_copy(update={"state": "complete", "values": (value, value)})

    return with_outcomes(asked, {trial.number: outcome(trial) for trial in asked.of_batch(batch)})


def test_the_first_trial_has_the_current_settings_and_each_has_a_title():
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


def test_the_same_record_gives_the_same_trials_also_when_read_again():
    with_first = scored(ask(study(), 1, 3), 1)
    read_again = Study.model_validate_json(with_first.model_dump_json())
    assert read_again == with_first
    second = ask(with_first, 2, 3)
    assert ask(read_again, 2, 3) == second
    assert ask(second, 2, 3) == second
    assert (
        ask(study(training=TrainingSettings(seed=8)), 1, 3).trials[1:]
        != ask(study(), 1, 3).trials[1:]
    )


def test_the_search_goes_where_earlier_trials_were_good():
    searched = study()
    for batch in range(1, 9):
        searched = scored(ask(searched, batch, 3), batch)
    values = [trial.mean for trial in searched.complete() if trial.mean is not None]
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
def test_current_settings_outside_the_space_are_a_trial_too(changes: dict[str, Any]):
    fresh = study(**changes)
    asked = scored_all(ask(fresh, 1, 3))
    current = searchable_values(fresh.plan.training, fresh.plan.confidence)
    assert asked.trials[0].params.items() <= current.items()
    assert len(ask(asked, 2, 3).trials) == 6


def scored_all(asked: Study) -> Study:
    return with_outcomes(
        asked,
        {
            t.number: t.model_copy(update={"state": "complete", "values": (0.1, 0.1)})
            for t in asked.trials
        },
    )


def test_a_trials_values_go_into_their_sections():
    training, confidence = with_values(
        TrainingSettings(),
        ConfidenceSettings(),
        {"training.factors": 9, "confidence.half_life_days": None},
    )
    assert (training.factors, training.iterations) == (9, TrainingSettings().iterations)
    assert (confidence.half_life_days, confidence.alpha) == (None, ConfidenceSettings().alpha)


def test_a_trial_below_the_median_of_earlier_batches_falls_behind():
    values = [(0.1, 0.5), (0.2, 0.2), (0.3, 0.3), (0.9, 0.9)]
    before = [
        Trial(number=n, batch=1, params={}, state="complete" if n < 3 else "pruned", values=ndcg)
        for n, ndcg in enumerate(values)
    ]
    trial = Trial(number=4, batch=2, params={})
    running = study().model_copy(update={"trials": (*before, trial)})
    assert falls_behind(running, trial, (0.19,))
    assert not falls_behind(running, trial, (0.2,))
    assert falls_behind(running, trial, (0.3, 0.2))
    assert not falls_behind(running, trial, (0.0, 0.7))
    assert not falls_behind(running, before[0], (0.0,))


def test_failed_and_pruned_trials_do_not_stop_the_search():
    asked = ask(study(), 1, 4)
    states = {
        0: {"state": "complete", "values": (0.1, 0.2)},
        1: {"state": "pruned", "values": (0.05,)},
        2: {"state": "failed"},
        3: {"state": "asked"},
    }
    after = with_outcomes(
        asked, {n: asked.trials[n].model_copy(update=state) for n, state in states.items()}
    )
    assert [trial.number for trial in after.complete()] == [0]
    assert len(ask(after, 2, 2).of_batch(2)) == 2
