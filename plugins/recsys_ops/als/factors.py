"""What a solver starts from and ends with, and what both sides of the factorisation are regularised by."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.settings import TrainingSettings


@dataclass(frozen=True)
class Factors:
    """user : float32, (n_users, factors) · item : float32, (n_items, factors). A row never trained is all zeros."""

    user: NDArray[np.float32]
    item: NDArray[np.float32]


# called after every sweep with its number from 0 and a function that returns copies of the factors so far
Callback = Callable[[int, Callable[[], Factors]], None]


def small_random(shape: tuple[int, int], factors: int, seed: int) -> Factors:
    """A cold start: uniform in [0, 0.01), the users' and the items' from streams of their own."""
    users, items = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2)
    )
    n_users, n_items = shape
    return Factors(
        users.random((n_users, factors), dtype=np.float32) * np.float32(0.01),
        items.random((n_items, factors), dtype=np.float32) * np.float32(0.01),
    )


def row_regularization(
    user_items: sparse.csr_matrix, settings: TrainingSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The L2 weight of each user's and each item's factors, (n_users,) and (n_items,).

    With m the mean over the users that have cells of their summed confidence − 1, n the same of the items, and s a row's summed
    confidence over all columns, of which an empty cell has 1, it is
    ``regularization * sqrt(m * n) * (s / mean(s)) ** regularization_exponent``: on the scale of the confidence, so that one
    setting does for shops of any size, and with an exponent more for rows with more to say (Rendle et al. 2021, ν).

    user_items : csr_matrix, (n_users, n_items), confidence ≥ 1
    """
    extra = user_items.astype(np.float64)
    extra.data -= 1
    users, items = (np.asarray(extra.sum(axis=axis)).ravel() for axis in (1, 0))
    means = [side[side > 0].mean() if side.any() else 0.0 for side in (users, items)]
    scale = settings.regularization * (np.sqrt(means[0] * means[1]) or 1.0)
    user_weights, item_weights = (
        (scale * ((columns + side) / (columns + mean)) ** settings.regularization_exponent).astype(
            np.float32
        )
        for side, mean, columns in zip((users, items), means, user_items.shape[::-1], strict=True)
    )
    return user_weights, item_weights
