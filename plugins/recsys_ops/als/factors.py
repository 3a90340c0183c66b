"""What a solver starts from and ends with, and what both sides of the factorisation are regularised by."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


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


def row_regularization(rows: sparse.csr_matrix, regularization: float, exponent: float) -> NDArray[np.float32]:
    """The L2 weight of each row's factors, (n_rows,): more for rows with more to say (Rendle et al. 2021, ν = `exponent`).

    ``regularization * (s / mean(s)) ** exponent``, s the row's summed confidence over all columns, of which an empty cell has 1.
    The mean over the rows that hold anything keeps `regularization` on one scale for every exponent; 0 treats all alike.

    rows : csr_matrix, (n_rows, n_columns), confidence ≥ 1
    """
    extra = rows.astype(np.float64)
    extra.data -= 1
    summed = rows.shape[1] + np.asarray(extra.sum(axis=1)).ravel()
    filled = np.diff(rows.indptr) > 0
    mean = summed[filled].mean() if filled.any() else 1.0
    weights: NDArray[np.float32] = (regularization * (summed / mean) ** exponent).astype(np.float32)
    return weights
