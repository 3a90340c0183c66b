"""The ALS solver against the equations it solves."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import sparse

from recsys_ops.als import device
from recsys_ops.als.factors import Factors, row_regularization
from recsys_ops.als.fit import fit, loss
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings

# one weight for all rows, as in the equations that the tests write down
flat = partial(TrainingSettings, regularization=0.02, regularization_exponent=0)


def weight(matrix: sparse.csr_matrix, settings: TrainingSettings) -> float:
    return float(row_regularization(matrix, settings)[0][0])


def confidences(users: int = 60, items: int = 25, seed: int = 3) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((users, items)) < 0.3, 1 + 20 * rng.random((users, items)), 0)
    dense[:, 0] = 5  # every row and column has a cell
    dense[0, :] = 5
    return sparse.csr_matrix(dense, dtype=np.float32)


def solved(user_items: sparse.csr_matrix, other: np.ndarray, regularization: float) -> np.ndarray:
    """x_u = (YᵀCᵘY + λI)⁻¹ YᵀCᵘp(u), Hu, Koren & Volinsky 2008, eq. 4, in float64.

    Cells that are not stored have confidence 1.
    """
    dense, y = user_items.toarray().astype(float), other.astype(float)
    confidence = np.where(dense > 0, dense, 1)
    left = np.einsum("ui,if,ig->ufg", confidence, y, y) + regularization * np.eye(y.shape[1])
    right = (dense @ y)[..., None]
    return np.linalg.solve(left, right)[..., 0]


def test_a_half_sweep_solves_the_normal_equations():
    # three steps of conjugate gradients are exact for three factors, up to float32
    settings = flat(factors=3, seed=1)
    matrix = confidences()
    factors = fit(matrix, settings, iterations=1)
    np.testing.assert_allclose(
        factors.item,
        solved(matrix.T.tocsr(), factors.user, weight(matrix, settings)),
        rtol=2e-3,
        atol=2e-4,
    )


def planted(users: int = 3000, items: int = 500, seed: int = 5) -> sparse.csr_matrix:
    """Degrees from 1 to most of the items, popular items, and some empty rows and columns."""
    rng = np.random.default_rng(seed)
    degree = np.minimum(rng.lognormal(2, 1.2, users).astype(int), items)
    degree[0], degree[-3:] = items, 0
    user = np.repeat(np.arange(users), degree)
    item = np.minimum(rng.geometric(0.012, len(user)) - 1, items - 5)
    weight = 1 + 16 * np.log1p(rng.integers(1, 6, len(user)))
    matrix = sparse.csr_matrix((weight, (user, item)), shape=(users, items)).tocsr()
    return matrix.astype(np.float32)


@pytest.mark.parametrize("factors", [1, 7, 64])
@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_the_loss_is_of_all_cells_and_falls_with_every_sweep(factors: int, exponent: float):
    matrix = planted(300, 60)
    settings = flat(factors=factors, regularization_exponent=exponent)
    losses: list[float] = []
    final = fit(
        matrix,
        settings,
        iterations=8,
        callback=lambda _, copy_factors: losses.append(loss(matrix, copy_factors(), settings)),
    )
    assert losses == sorted(losses, reverse=True)
    dense, x, y = matrix.toarray().astype(float), final.user.astype(float), final.item.astype(float)
    confidence = np.where(dense > 0, dense, 1)
    total = (confidence * ((dense > 0) - x @ y.T) ** 2).sum()
    extra = [(confidence - 1).sum(axis=axis) for axis in (1, 0)]
    means = [side[side > 0].mean() for side in extra]
    for side, more, mean, columns in zip((x, y), extra, means, (len(y), len(x)), strict=True):
        weights = (
            0.02 * np.sqrt(means[0] * means[1]) * ((columns + more) / (columns + mean)) ** exponent
        )
        total += (weights * (side**2).sum(axis=1)).sum()
    assert losses[-1] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("factors", [33, 64, 128])
def test_the_loss_falls_at_least_as_much_as_with_implicit(factors: int):
    matrix = planted()
    settings = {name: flat(factors=factors, solver=name) for name in ("cpu", "implicit")}
    reached = {
        name: loss(matrix, fit(matrix, chosen, iterations=3), chosen)
        for name, chosen in settings.items()
    }
    assert reached["cpu"] <= reached["implicit"]


def test_the_same_sweeps_from_the_same_start_give_implicit_s_factors():
    # with as many steps of conjugate gradients as factors both are exact, but for rounding
    matrix, (cpu, implicit) = (
        planted(),
        (flat(factors=3, solver=name) for name in ("cpu", "implicit")),
    )
    start = fit(matrix, cpu, iterations=5)
    by_cpu, by_implicit = (
        fit(matrix, settings, iterations=3, factors0=start) for settings in (cpu, implicit)
    )
    for one, other in ((by_cpu.user, by_implicit.user), (by_cpu.item, by_implicit.item)):
        assert np.linalg.norm(one - other) < 1e-3 * np.linalg.norm(other)


def test_an_enormous_regularisation_gives_zeros_and_no_error():
    factors = fit(planted(), flat(factors=16, regularization=1e4, solver="cpu"), iterations=40)
    assert np.abs(factors.item).max() < 1e-10


def test_the_bytes_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    matrix, settings = planted(), flat(factors=48, solver="cpu")
    many = fit(matrix, settings, iterations=2)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    one = fit(matrix, settings, iterations=2)
    assert (one.user.tobytes(), one.item.tobytes()) == (many.user.tobytes(), many.item.tobytes())


def test_a_missing_gpu_is_an_error_and_auto_takes_the_cpu():
    if device.find_gpu().name:
        return
    with pytest.raises(ModelError, match="no GPU to compute on"):
        fit(confidences(), flat(factors=4, solver="gpu"), iterations=1)
    automatic, cpu = (
        fit(confidences(), flat(factors=4, solver=name), iterations=1) for name in ("auto", "cpu")
    )
    assert automatic.item.tobytes() == cpu.item.tobytes()


def test_rows_with_more_confidence_are_regularised_more():
    matrix = planted()
    for exponent in (0.0, 0.5):
        for axis, weights in zip(
            (1, 0), row_regularization(matrix, flat(regularization_exponent=exponent)), strict=True
        ):
            summed = (matrix.toarray() - 1).clip(0).sum(axis=axis)
            assert (np.diff(weights[np.argsort(summed)]) >= 0).all()
            assert (len(set(weights)) > 1) == (exponent > 0)


def test_one_regularisation_suits_other_confidences_and_shop_sizes():
    matrix = planted()
    doubled = matrix.copy()
    doubled.data = 2 * matrix.data - 1
    beside = sparse.block_diag([matrix, matrix], format="csr")
    assert weight(doubled, flat()) == pytest.approx(2 * weight(matrix, flat()), rel=1e-5)
    assert weight(beside, flat()) == pytest.approx(weight(matrix, flat()), rel=1e-5)


def test_implicit_s_solver_cannot_regularise_by_row():
    with pytest.raises(ValidationError, match="set regularization_exponent to 0"):
        flat(factors=4, solver="implicit", regularization_exponent=0.5)


def test_many_sweeps_reach_the_fixed_point_of_both_equations():
    settings = flat(factors=8, seed=1)
    matrix = confidences()
    factors = fit(matrix, settings, iterations=200)
    np.testing.assert_allclose(
        factors.user, solved(matrix, factors.item, weight(matrix, settings)), atol=5e-3
    )
    np.testing.assert_allclose(
        factors.item, solved(matrix.T.tocsr(), factors.user, weight(matrix, settings)), atol=5e-3
    )


def test_the_same_input_gives_the_same_bytes_cold_and_warm():
    settings, matrix = flat(factors=16, seed=9), confidences(500, 80)
    first, second = (fit(matrix, settings, iterations=4) for _ in range(2))
    assert (first.user.tobytes(), first.item.tobytes()) == (
        second.user.tobytes(),
        second.item.tobytes(),
    )
    warm, again = (fit(matrix, settings, iterations=2, factors0=first) for _ in range(2))
    assert (warm.user.tobytes(), warm.item.tobytes()) == (
        again.user.tobytes(),
        again.item.tobytes(),
    )


FITTING = """
import numpy as np
from scipy import sparse
from recsys_ops.als.fit import fit
from recsys_ops.settings import TrainingSettings

matrix = sparse.random_array((2000, 300), density=0.05, format="csr", dtype=np.float32, rng=1)
matrix.data += 1
factors = fit(sparse.csr_matrix(matrix), TrainingSettings(factors=64, solver="cpu"), iterations=2)
print(factors.user.tobytes().hex())
"""


def test_the_bytes_are_the_same_compiled_and_loaded_from_disk(tmp_path: Path):
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = partial(
        subprocess.run,
        [sys.executable, "-c", FITTING],
        env=environment,
        check=True,
        capture_output=True,
    )
    compiled = run().stdout
    assert any("solve" in file.name for file in tmp_path.rglob("*.nbc"))
    assert run().stdout == compiled


def test_another_seed_starts_elsewhere():
    matrix = confidences()
    one, other = (fit(matrix, flat(factors=8, seed=seed), iterations=1) for seed in (1, 2))
    assert not np.array_equal(one.item, other.item)


def test_sweeps_in_two_parts_equal_sweeps_in_one():
    settings, matrix = flat(factors=8), confidences()
    start = fit(matrix, settings, iterations=3)
    kept = Factors(start.user.copy(), start.item.copy())
    np.testing.assert_array_equal(
        fit(matrix, settings, iterations=2, factors0=start).item,
        fit(matrix, settings, iterations=5).item,
    )
    np.testing.assert_array_equal(start.user, kept.user)
    np.testing.assert_array_equal(start.item, kept.item)


@pytest.mark.parametrize("solver", ["cpu", "implicit"])
@pytest.mark.parametrize("stop", range(5))
def test_sweeps_resume_after_any_sweep_with_the_same_bytes(solver: str, stop: int):
    settings, matrix, seen = flat(factors=12, solver=solver), planted(), []
    expected = fit(
        matrix, settings, iterations=5, callback=lambda _, copy_factors: seen.append(copy_factors())
    )
    rest = fit(matrix, settings, iterations=4 - stop, factors0=seen[stop])
    assert (rest.user.tobytes(), rest.item.tobytes()) == (
        expected.user.tobytes(),
        expected.item.tobytes(),
    )


def test_a_user_without_rows_gets_zero_factors():
    matrix = confidences().tolil()
    matrix[7, :] = 0
    assert not fit(matrix.tocsr(), flat(factors=8), iterations=2).user[7].any()


@pytest.mark.parametrize("wrong", [0.5, -1.0, float("nan")])
def test_a_confidence_below_one_is_refused(wrong: float):
    matrix = confidences()
    matrix.data[4] = wrong
    with pytest.raises(ModelError, match="below 1"):
        fit(matrix, flat(factors=4), iterations=1)


def test_factors_that_overflow_are_an_error_and_not_a_model():
    matrix = confidences()
    matrix.data[:] = 3e38
    with pytest.raises(ModelError, match="did not stay finite"):
        fit(matrix, flat(factors=4, solver="cpu"), iterations=2)
