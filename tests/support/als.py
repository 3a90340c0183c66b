"""Matrices and factors for the solvers, and the equations that a sweep solves."""

from functools import partial

import numpy as np
from scipy import sparse

from recsys_ops.als.factors import Factors, row_regularization
from recsys_ops.settings import TrainingSettings

# one weight for all rows, as in the equations that the tests write down
flat = partial(TrainingSettings, regularization=0.02, regularization_exponent=0)


def cells(degrees: list[int], columns: int, seed: int = 3) -> sparse.csr_matrix:
    """Rows of the given degrees, confidence 1 … 21."""
    rng = np.random.default_rng(seed)
    chosen = [np.sort(rng.choice(columns, degree, replace=False)) for degree in degrees]
    data = (1 + 20 * rng.random(sum(degrees))).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    return sparse.csr_matrix(
        (data, np.concatenate(chosen).astype(np.int32), indptr), shape=(len(degrees), columns)
    )


def many(users: int = 300, items: int = 90, seed: int = 3) -> sparse.csr_matrix:
    """Users of every degree from none to half of all."""
    rng = np.random.default_rng(seed)
    matrix = cells(rng.integers(0, items // 2, users).tolist(), items - 1, seed)
    matrix.resize((users, items))  # and an item that nobody has
    return matrix


def random_start(shape: tuple[int, int], factors: int, seed: int = 1) -> Factors:
    """Factors of the size of trained ones."""
    rng = np.random.default_rng(seed)
    return Factors(
        *(
            rng.standard_normal((n, factors)).astype(np.float32) * np.float32(factors**-0.5)
            for n in shape
        )
    )


def exact_solution(
    rows: sparse.csr_matrix, other: np.ndarray, regularization: np.ndarray
) -> np.ndarray:
    """x_u = (YᵀCᵘY + λ_u I)⁻¹ YᵀCᵘp(u), Hu, Koren & Volinsky 2008, eq. 4, in float64."""
    y = other.astype(float)
    gram, solution = y.T @ y, np.zeros((rows.shape[0], y.shape[1]))
    for row in range(rows.shape[0]):
        run = slice(rows.indptr[row], rows.indptr[row + 1])
        g, c = y[rows.indices[run]], rows.data[run].astype(float)
        left = gram + (g.T * (c - 1)) @ g + regularization[row] * np.eye(y.shape[1])
        solution[row] = np.linalg.solve(left, g.T @ c)
    return solution


def distance(computed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """‖computed − expected‖ / ‖expected‖ of every row; of a row of zeros ‖computed‖."""
    size = np.linalg.norm(expected, axis=1)
    return np.linalg.norm(computed - expected, axis=1) / np.where(size > 0, size, 1)


def dense_loss(matrix: sparse.csr_matrix, factors: Factors, settings: TrainingSettings) -> float:
    stored = matrix.toarray().astype(float)
    user, item = factors.user.astype(float), factors.item.astype(float)
    error = np.where(stored > 0, stored, 1) * ((stored > 0) - user @ item.T) ** 2
    weights = row_regularization(matrix, settings)
    return float(
        error.sum() + weights[0] @ (user**2).sum(axis=1) + weights[1] @ (item**2).sum(axis=1)
    )
