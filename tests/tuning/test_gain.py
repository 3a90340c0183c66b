"""The best trial's gain: paired by user, averaged over the days, its interval for many trials."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_ops.tuning.gain import best_gain

Scores = dict[int, list[NDArray[np.float64]]]


def scores(
    gains: list[float], users: tuple[int, ...] = (600, 400), noise: float = 0.1, seed: int = 0
) -> Scores:
    """Trial 0 and one trial for each gain: each user's own level, the gain, and noise."""
    random = np.random.default_rng(seed)
    by_trial: Scores = {n: [] for n in range(len(gains) + 1)}
    for n_users in users:
        base = random.random(n_users)
        for n, gain in enumerate([0.0, *gains]):
            by_trial[n].append(base + gain + noise * random.standard_normal(n_users) * (n > 0))
    return by_trial


def test_a_clear_gain_is_found_with_an_interval_around_it():
    trials = scores([0.01, 0.05, -0.05])
    gain = best_gain(trials, seed=1)
    assert gain.trial == 2
    assert gain.mean == pytest.approx(
        np.mean(
            [(after - before).mean() for after, before in zip(trials[2], trials[0], strict=True)]
        )
    )
    assert 0.03 < gain.lower < gain.mean < gain.upper < 0.07
    assert best_gain(trials, seed=1) == gain


def test_each_day_counts_the_same_whatever_its_number_of_users():
    days = [np.zeros(10), np.zeros(1000)]
    gain = best_gain(
        {0: days, 1: [day + value for day, value in zip(days, (0.4, 0.0), strict=True)]}, seed=1
    )
    assert gain.mean == pytest.approx(0.2)


def test_many_equal_trials_do_not_make_one_of_them_better():
    """A plain interval of the best of 20 would be above zero nearly every second time."""
    false_gains = sum(
        best_gain(scores([0.0] * 20, users=(300,), seed=seed), seed=1).lower > 0
        for seed in range(60)
    )
    assert false_gains <= 6


def test_trial_0_is_the_best_if_no_trial_is_better_or_scored():
    no_gain = (0, 0.0, 0.0, 0.0)
    for trials in (scores([-0.1, -0.2]), {0: [np.ones(5)]}, {0: [np.zeros(0)], 1: [np.zeros(0)]}):
        gain = best_gain(trials, seed=1)
        assert (gain.trial, gain.mean, gain.lower, gain.upper) == no_gain


def test_a_day_without_users_counts_as_no_gain():
    gain = best_gain({0: [np.zeros(4), np.zeros(0)], 1: [np.full(4, 0.2), np.zeros(0)]}, seed=1)
    assert gain.mean == pytest.approx(0.1)
