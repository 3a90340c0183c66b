"""What the best trial gains over the settings as they are, with an interval that minds that it is the best of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS = 1000
_AT_ONCE = 4_000_000  # users drawn at a time: 32 MB


@dataclass(frozen=True)
class Gain:
    """trial : the best one's number, 0 where none is better · mean, lower, upper : of what it gains, and its 95 % interval"""

    trial: int
    mean: float
    lower: float
    upper: float


def best_gain(scores: Mapping[int, Sequence[NDArray[np.float64]]], seed: int) -> Gain:
    """The trial with the highest mean over the days, against trial 0.

    The interval is simultaneous over all trials: a paired bootstrap over the users of each day, the same draws for all, whose
    studentised largest and smallest deviations give the bounds (max-t; Romano & Wolf 2005). So it holds for the trial that came
    out best just because it was lucky, too. Someone who is among the users of several days is drawn for each day anew.

    scores : by trial number, trial 0's among them, for each day (n_users of that day,): each user's NDCG
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
    random = np.random.default_rng(seed)
    deviations = (
        np.sum([_resampled_means(differences, random) for differences in days], axis=0)
        / len(scores[0])
        - gains
    )
    spread = deviations.std(axis=0)
    studentised = deviations[:, spread > 0] / spread[spread > 0]
    if not studentised.size:
        return Gain(numbers[best], float(gains[best]), float(gains[best]), float(gains[best]))
    above, below = (
        np.quantile(studentised.max(axis=1), 0.975),
        np.quantile(studentised.min(axis=1), 0.025),
    )
    lower, upper = gains[best] - above * spread[best], gains[best] - below * spread[best]
    return Gain(numbers[best], float(gains[best]), float(lower), float(upper))


def _resampled_means(
    differences: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """(_DRAWS, n_trials): the means over users drawn with replacement."""
    n_users = len(differences)
    at_once = max(1, _AT_ONCE // n_users)
    share = np.full(n_users, 1 / n_users)
    drawn = [
        random.multinomial(n_users, share, size=min(at_once, _DRAWS - start)) @ differences
        for start in range(0, _DRAWS, at_once)
    ]
    means: NDArray[np.float64] = np.concatenate(drawn) / n_users
    return means
