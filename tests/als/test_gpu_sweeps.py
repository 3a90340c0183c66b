"""The GPU solver's sweeps against the equations they solve; its code also runs with NumPy."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from support.als import (
    cells,
    dense_loss,
    distance,
    exact_solution,
    flat,
    many,
    random_start,
)

from recsys_ops.als import normal_equations
from recsys_ops.als.factors import Factors, row_regularization, small_random
from recsys_ops.als.fit import loss
from recsys_ops.als.gpu import sweeps
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("one_thread")


def check_half_sweep(
    xp: Any, matrix: sparse.csr_matrix, settings: TrainingSettings, limit: float = 1e-4
) -> Factors:
    """One sweep solves the users given the first items, then the items given these users."""
    start = random_start(matrix.shape, settings.factors)
    result = sweeps(matrix, start, settings, 1, xp=xp)
    assert (result.user.dtype, result.item.dtype) == (np.float32, np.float32)
    users, items = row_regularization(matrix, settings)
    halves = (
        (matrix, start.item, result.user, users),
        (matrix.T.tocsr(), result.user, result.item, items),
    )
    for rows, other, solved, weights in halves:
        assert distance(solved, exact_solution(rows, other, weights)).max() <= limit
    return result


@pytest.mark.parametrize("factors", [1, 7, 33, 64])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_every_row_solves_its_normal_equations_whatever_its_degree(
    xp: Any, factors: int, exponent: float
):
    degrees = [0, 1, 2, max(factors - 1, 0), factors, factors + 1, 1000]
    settings = flat(factors=factors, regularization_exponent=exponent)
    check_half_sweep(xp, cells(degrees, 1500), settings)


def test_a_row_with_a_hundred_thousand_cells_is_as_exact_as_the_others(xp: Any):
    matrix = cells([100_000, 3, 0, 40_000], 120_000)
    settings = flat(factors=16)
    start = random_start(matrix.shape, 16)
    result = sweeps(matrix, start, settings, 1, xp=xp)
    assert (
        distance(
            result.user, exact_solution(matrix, start.item, row_regularization(matrix, settings)[0])
        ).max()
        <= 1e-4
    )


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1)])
def test_one_user_or_one_item_is_enough(xp: Any, shape: tuple[int, int]):
    check_half_sweep(xp, sparse.csr_matrix(np.full(shape, 3, np.float32)), flat(factors=5))


def test_users_and_items_without_cells_get_zeros(xp: Any):
    matrix = many()
    result = sweeps(matrix, random_start(matrix.shape, 8), flat(factors=8), 2, xp=xp)
    for factors, rows in ((result.user, matrix), (result.item, matrix.T.tocsr())):
        empty = np.diff(rows.indptr) == 0
        assert empty.any()
        np.testing.assert_array_equal(factors.any(axis=1), ~empty)
    nothing = sweeps(
        sparse.csr_matrix((3, 2), dtype=np.float32),
        random_start((3, 2), 4),
        flat(factors=4),
        1,
        xp=xp,
    )
    assert not nothing.user.any() and not nothing.item.any()


def test_a_stored_confidence_of_one_is_a_cell_like_any_other(xp: Any):
    matrix = many()
    matrix.data[::2] = 1
    check_half_sweep(xp, matrix, flat(factors=20))


def test_as_many_exact_iterations_as_implicit_give_the_same_factors(xp: Any):
    matrix, start = many(), random_start((300, 90), 24)
    weight = float(row_regularization(matrix, flat())[0][0])
    model = AlternatingLeastSquares(
        factors=24,
        regularization=weight,
        alpha=1.0,
        iterations=4,
        use_cg=False,
        use_native=True,
        dtype=np.float64,
        num_threads=1,
    )
    model.user_factors, model.item_factors = start.user.astype(float), start.item.astype(float)
    model.fit(matrix, show_progress=False)
    result = sweeps(matrix, start, flat(factors=24), 4, xp=xp)
    assert distance(result.user, model.user_factors).max() <= 1e-3
    assert distance(result.item, model.item_factors).max() <= 1e-3


@pytest.mark.parametrize("largest_system", [normal_equations.LARGEST_SYSTEM, 6])
@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_the_loss_falls_with_every_iteration(
    xp: Any, largest_system: int, exponent: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(normal_equations, "LARGEST_SYSTEM", largest_system)
    matrix, settings = many(), flat(factors=12, regularization_exponent=exponent)
    numbers, seen = [], [small_random(matrix.shape, 12, 1)]

    def after(iteration: int, copy_factors: Callable[[], Factors]) -> None:
        numbers.append(iteration)
        seen.append(copy_factors())

    result = sweeps(matrix, seen[0], settings, 6, after, xp=xp)
    losses = [dense_loss(matrix, factors, settings) for factors in seen]
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] == dense_loss(matrix, result, settings)
    assert [loss(matrix, factors, settings) for factors in seen] == pytest.approx(losses, rel=1e-6)


def test_three_steps_are_those_of_conjugate_gradients(xp: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(normal_equations, "LARGEST_SYSTEM", 0)
    # in three unknowns three steps are the solution; in more they come closer to it
    check_half_sweep(xp, many(), flat(factors=3), limit=2e-3)
    matrix, settings = many(), flat(factors=20)
    start = random_start(matrix.shape, 20)
    solution = exact_solution(matrix, start.item, np.full(300, 2.0))
    result = sweeps(matrix, start, settings, 1, xp=xp)
    degree = np.diff(matrix.indptr)
    assert (
        distance(result.user, solution)[degree > 0]
        < 0.5 * distance(start.user, solution)[degree > 0]
    ).all()


def test_rows_of_many_cells_and_factors_take_three_steps(xp: Any):
    matrix, settings = cells([300, 5, 700, 280], 900), flat(factors=300)
    start = random_start(matrix.shape, 300)
    result = sweeps(matrix, start, settings, 1, xp=xp).user
    solution = exact_solution(matrix, start.item, row_regularization(matrix, settings)[0])
    far = distance(result, solution)
    assert far[1] <= 1e-4, "five cells are a system of five unknowns"
    assert (far <= 0.2).all()


def test_the_same_input_gives_the_same_bytes(xp: Any):
    matrix, settings = many(), flat(factors=16)
    start = small_random(matrix.shape, 16, 5)
    kept = start.user.tobytes(), start.item.tobytes()
    first, second = (sweeps(matrix, start, settings, 3, xp=xp) for _ in range(2))
    assert (first.user.tobytes(), first.item.tobytes()) == (
        second.user.tobytes(),
        second.item.tobytes(),
    )
    assert (start.user.tobytes(), start.item.tobytes()) == kept


@pytest.mark.parametrize("largest", [1e4, 1e8, 1e12, 1e16])
def test_an_enormous_confidence_gives_finite_factors(xp: Any, largest: float):
    matrix = many()
    matrix.data[::3] = largest
    start = random_start(matrix.shape, 16)
    start.item[1::2] = start.item[::2]  # equal items make equal columns
    result = sweeps(matrix, start, flat(factors=16), 3, xp=xp)
    assert np.isfinite(result.user).all() and np.isfinite(result.item).all()
    assert np.abs(result.user @ result.item.T).max() < 100


def test_enormous_confidences_give_finite_factors_or_an_error(xp: Any):
    matrix = many()
    matrix.data[:] = 3e38
    try:
        result = sweeps(matrix, random_start(matrix.shape, 4), flat(factors=4), 2, xp=xp)
    except ModelError as error:
        assert (
            "cannot be solved in float32 (largest confidence 3e+38, regularization 0.02): lower"
            in str(error)
        )
    else:
        assert np.isfinite(result.user).all()


@pytest.mark.parametrize("stop", range(5))
def test_sweeps_resume_after_any_sweep_with_the_same_bytes(xp: Any, stop: int):
    matrix, settings, seen = many(), flat(factors=12), []
    start = small_random(matrix.shape, 12, 1)
    expected = sweeps(
        matrix, start, settings, 5, lambda _, copy_factors: seen.append(copy_factors()), xp=xp
    )
    rest = sweeps(matrix, seen[stop], settings, 4 - stop, xp=xp)
    assert (rest.user.tobytes(), rest.item.tobytes()) == (
        expected.user.tobytes(),
        expected.item.tobytes(),
    )
