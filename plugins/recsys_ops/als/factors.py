"""The factors that a solver starts from and returns, and the regularisation of their rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.settings import TrainingSettings


@dataclass(frozen=True)
class Factors:
    """The two matrices of a model. A row that was never trained is all zeros.

    user : float32, (n_users, factors)
    item : float32, (n_items, factors)
    """

    user: NDArray[np.float32]
    item: NDArray[np.float32]


# called after every sweep with its number from 0 and a function that copies the factors so far
Callback = Callable[[int, Callable[[], Factors]], None]


def small_random(shape: tuple[int, int], factors: int, seed: int) -> Factors:
    """The factors of a cold start: uniform in [0, 0.01), users and items from separate streams."""
    for_users, for_items = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2)
    )
    n_users, n_items = shape
    return Factors(
        for_users.random((n_users, factors), dtype=np.float32) * np.float32(0.01),
        for_items.random((n_items, factors), dtype=np.float32) * np.float32(0.01),
    )


def row_regularization(
    user_items: sparse.csr_matrix, settings: TrainingSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The L2 weight of each user's and each item's factors, (n_users,) and (n_items,).

    See `l2_weights`. The means are over the rows that have cells.

    user_items : csr_matrix, (n_users, n_items), confidence ≥ 1
    """
    extra = user_items.astype(np.float64)
    extra.data -= 1
    of_users, of_items = (np.asarray(extra.sum(axis=axis)).ravel() for axis in (1, 0))
    user_mean, item_mean = (
        sums[sums > 0].mean() if sums.any() else 0.0 for sums in (of_users, of_items)
    )
    n_users, n_items = user_items.shape
    return (
        l2_weights(of_users, user_mean, item_mean, n_items, settings).astype(np.float32),
        l2_weights(of_items, item_mean, user_mean, n_users, settings).astype(np.float32),
    )


def l2_weights(
    extra: NDArray[np.float64],
    mean: float,
    other_mean: float,
    columns: int,
    settings: TrainingSettings,
) -> NDArray[np.float64]:
    """The L2 weight of each row of one side: of users, or of items.

    It is ``regularization * sqrt(mean * other_mean) * (s / mean(s)) ** regularization_exponent``,
    where s is a row's summed confidence over all columns, of which an empty cell has 1. So it is on
    the scale of the confidence, and one setting suits shops of any size. With an exponent above 0
    rows with more confidence are regularised more (Rendle et al. 2021, ν).

    extra : (n,), the sum of each row's confidence − 1
    mean, other_mean : the mean of `extra` over the rows of this side, and over those of the other
    columns : how many rows the other side has

    Returns float64, (n,).
    """
    scale = settings.regularization * (np.sqrt(mean * other_mean) or 1.0)
    relative = (columns + extra) / (columns + mean)
    weights: NDArray[np.float64] = scale * relative**settings.regularization_exponent
    return weights
