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
    users, items = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    n_users, n_items = shape
    return Factors(
        users.random((n_users, factors), dtype=np.float32) * np.float32(0.01),
        items.random((n_items, factors), dtype=np.float32) * np.float32(0.01),
    )


def row_regularization(
    user_items: sparse.csr_matrix, settings: TrainingSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The L2 weight of each user's and each item's factors, (n_users,) and (n_items,).

    ``regularization * (s / mean(s)) ** regularization_exponent``, s the summed confidence of the row over all columns, of which
    an empty cell has 1: with an exponent, who has more to say is regularised more (Rendle et al. 2021, ν). The mean over the rows
    that hold anything keeps `regularization` on one scale.

    user_items : csr_matrix, (n_users, n_items), confidence ≥ 1
    """
    extra = user_items.astype(np.float64)
    extra.data -= 1
    users, items = (_weights(np.asarray(extra.sum(axis=axis)).ravel(), user_items.shape[axis], settings) for axis in (1, 0))
    return users, items


def _weights(extra: NDArray[np.float64], columns: int, settings: TrainingSettings) -> NDArray[np.float32]:
    mean = columns + (extra[extra > 0].mean() if extra.any() else 0)
    shares = ((columns + extra) / mean) ** settings.regularization_exponent
    return (settings.regularization * shares).astype(np.float32)
