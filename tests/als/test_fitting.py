"""The ALS solver against the equations it solves."""

import numpy as np
import pytest
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.als.fitting import fit
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings


def confidences(users: int = 60, items: int = 25, seed: int = 3) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((users, items)) < 0.3, 1 + 20 * rng.random((users, items)), 0)
    dense[:, 0] = 5  # nobody and nothing is empty
    dense[0, :] = 5
    return sparse.csr_matrix(dense, dtype=np.float32)


def solved(user_items: sparse.csr_matrix, other: np.ndarray, regularization: float) -> np.ndarray:
    """x_u = (YᵀCᵘY + λI)⁻¹ YᵀCᵘp(u), Hu, Koren & Volinsky 2008, eq. 4, in float64; unobserved cells have confidence 1."""
    dense, y = user_items.toarray().astype(float), other.astype(float)
    confidence = np.where(dense > 0, dense, 1)
    left = np.einsum("ui,if,ig->ufg", confidence, y, y) + regularization * np.eye(y.shape[1])
    right = (dense @ y)[..., None]
    return np.linalg.solve(left, right)[..., 0]


def test_a_half_sweep_solves_the_normal_equations():
    # three steps of conjugate gradients are exact for three factors, up to float32
    settings = TrainingSettings(factors=3, regularization=2.0, seed=1)
    matrix = confidences()
    factors = fit(matrix, settings, iterations=1)
    np.testing.assert_allclose(factors.item, solved(matrix.T.tocsr(), factors.user, 2.0), rtol=2e-3, atol=2e-4)


def test_many_sweeps_reach_the_fixed_point_of_both_equations():
    settings = TrainingSettings(factors=8, regularization=2.0, seed=1)
    matrix = confidences()
    factors = fit(matrix, settings, iterations=200)
    np.testing.assert_allclose(factors.user, solved(matrix, factors.item, 2.0), atol=5e-3)
    np.testing.assert_allclose(factors.item, solved(matrix.T.tocsr(), factors.user, 2.0), atol=5e-3)


def test_the_same_input_gives_the_same_bytes_cold_and_warm():
    settings, matrix = TrainingSettings(factors=16, seed=9), confidences(500, 80)
    first, second = (fit(matrix, settings, iterations=4) for _ in range(2))
    assert (first.user.tobytes(), first.item.tobytes()) == (second.user.tobytes(), second.item.tobytes())
    warm, again = (fit(matrix, settings, iterations=2, factors0=first) for _ in range(2))
    assert (warm.user.tobytes(), warm.item.tobytes()) == (again.user.tobytes(), again.item.tobytes())


def test_another_seed_starts_elsewhere():
    matrix = confidences()
    one, other = (fit(matrix, TrainingSettings(factors=8, seed=seed), iterations=1) for seed in (1, 2))
    assert not np.array_equal(one.item, other.item)


def test_sweeps_in_two_parts_equal_sweeps_in_one():
    settings, matrix = TrainingSettings(factors=8), confidences()
    start = fit(matrix, settings, iterations=3)
    kept = Factors(start.user.copy(), start.item.copy())
    np.testing.assert_array_equal(
        fit(matrix, settings, iterations=2, factors0=start).item, fit(matrix, settings, iterations=5).item
    )
    np.testing.assert_array_equal(start.user, kept.user)
    np.testing.assert_array_equal(start.item, kept.item)


def test_a_user_without_rows_gets_zero_factors():
    matrix = confidences().tolil()
    matrix[7, :] = 0
    assert not fit(matrix.tocsr(), TrainingSettings(factors=8), iterations=2).user[7].any()


@pytest.mark.parametrize("wrong", [0.5, -1.0, float("nan")])
def test_a_confidence_below_one_is_refused(wrong: float):
    matrix = confidences()
    matrix.data[4] = wrong
    with pytest.raises(ModelError, match="below 1"):
        fit(matrix, TrainingSettings(factors=4), iterations=1)


def test_factors_that_overflow_are_an_error_and_not_a_model():
    matrix = confidences()
    matrix.data[:] = 3e38
    with pytest.raises(ModelError, match="did not stay finite"):
        fit(matrix, TrainingSettings(factors=4), iterations=2)
