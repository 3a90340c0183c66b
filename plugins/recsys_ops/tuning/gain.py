"""What the best trial gains over the current settings, with an interval for the best of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS = 1000
_DRAWN_AT_ONCE = 4_000_000  # users, 32 MB


@dataclass(frozen=True)
class Gain:
    """The gain of the best trial.

    trial : its number, 0 where no trial is better than trial 0
    mean : the gain in NDCG · lower, upper : the 95 % interval of the gain
    """

    trial: int
    mean: float
    lower: float
    upper: float


def best_gain(scores: Mapping[int, Sequence[NDArray[np.float64]]], seed: int) -> Gain:
    """The trial with the highest mean over the days, compared with trial 0.

    The interval is simultaneous over all trials, so it also holds for a trial that is best only by
    luck. It comes from a paired bootstrap over the users of each day with the same draws for all
    trials; the largest and smallest studentised deviations give the bounds (max-t; Romano & Wolf
    2005). A user of several days is drawn independently for each day.

    scores : by trial number, with trial 0; for each day the NDCG of each of its users, (n_users,)
    seed : of the bootstrap
    """
    numbers = sorted(scores.keys() - {0})
    days = (
        [
            np.stack([scores[n][d] - base for n in numbers], axis=1)
            for d, base in enumerate(scores[0])
        ]
        if numbers
        else []
    )
    days = [differences for differences in days if len(differences)]
    if not days:
        return Gain(0, 0.0, 0.0, 0.0)
    gains = np.sum([differences.mean(axis=0) for differences in days], axis=0) / len(scores[0])
    best = int(gains.argmax())
    if gains[best] <= 0:
        return Gain(0, 0.0, 0.0, 0.0)
    best_mean = float(gains[best])
    random = np.random.default_rng(seed)
    deviations = (
        np.sum([_resampled_means(differences, random) for differences in days], axis=0)
        / len(scores[0])
        - gains
    )
    spread = deviations.std(axis=0)
    studentised = deviations[:, spread > 0] / spread[spread > 0]
    if not studentised.size:
        return Gain(numbers[best], best_mean, best_mean, best_mean)
    above = np.quantile(studentised.max(axis=1), 0.975)
    below = np.quantile(studentised.min(axis=1), 0.025)
    lower, upper = gains[best] - above * spread[best], gains[best] - below * spread[best]
    return Gain(numbers[best], best_mean, float(lower), float(upper))


def _resampled_means(
    differences: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """(_DRAWS, n_trials): the means over users drawn with replacement."""
    n_users = len(differences)
    draws_at_once = max(1, _DRAWN_AT_ONCE // n_users)
    share = np.full(n_users, 1 / n_users)
    sums = [
        random.multinomial(n_users, share, size=min(draws_at_once, _DRAWS - start)) @ differences
        for start in range(0, _DRAWS, draws_at_once)
    ]
    means: NDArray[np.float64] = np.concatenate(sums) / n_users
    return means
