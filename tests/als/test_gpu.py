"""The solver for the GPU: its arithmetic runs with NumPy, and with CuPy where there is a GPU."""

import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.als import device, gpu, normal_equations
from recsys_ops.als.factors import Factors, row_regularization, small_random
from recsys_ops.als.fit import fit, loss
from recsys_ops.als.gpu import sweeps, top_n
from recsys_ops.als.top_n import top_n as cpu_top_n
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings

# one weight for all rows, as in the equations that the tests write down
flat = partial(TrainingSettings, regularization=0.02, regularization_exponent=0)

MODULES = [np, device.cupy()] if device.find_gpu().name else [np]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """With a thread for each core they wait for each other longer than they compute."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__)
def xp(request: pytest.FixtureRequest) -> Any:
    return request.param


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


@pytest.mark.parametrize("largest_system", [normal_equations.LARGEST_SYSTEM, 6])
def test_a_small_gpu_takes_more_batches_and_gets_the_same_factors(
    xp: Any, largest_system: int, monkeypatch: pytest.MonkeyPatch
):
    # 6: conjugate gradients for nearly all rows
    monkeypatch.setattr(normal_equations, "LARGEST_SYSTEM", largest_system)
    monkeypatch.setattr(normal_equations, "GRAM_ROWS", 64)
    matrix, settings = many(2000), flat(factors=16)
    start = random_start(matrix.shape, 16)
    expected = sweeps(matrix, start, settings, 2, xp=xp)
    sides = []
    monkeypatch.setattr(
        gpu, "_side", lambda *args, side=gpu._side: sides.append(side(*args)) or sides[-1]
    )
    tight = flat(**(settings.model_dump() | {"max_gpu_memory_gib": 1_100_000 / 2**30}))
    parted = sweeps(matrix, start, tight, 2, xp=xp)
    users, items = sides
    assert len(users.batches) > 50
    assert any(batch.run < batch.width for batch in items.batches), "no row was split"
    assert distance(parted.user, expected.user).max() <= 1e-4
    assert distance(parted.item, expected.item).max() <= 1e-4


@pytest.mark.parametrize("gib", [0.003, 0.02])
def test_a_gpu_too_small_says_how_many_factors_would_fit(xp: Any, gib: float):
    def fit_with(factors: int) -> Factors:
        settings = flat(factors=factors, max_gpu_memory_gib=gib)
        return sweeps(many(), random_start((300, 90), factors), settings, 1, xp=xp)

    with pytest.raises(
        ModelError, match=r"[\d,]+ bytes for .* cells .*raise training.max_gpu_memory_gib, or lower"
    ) as error:
        fit_with(200)
    fitting = int(re.search(r"lower training.factors to (\d+)$", str(error.value))[1])
    assert 1 < fitting < 200
    fit_with(fitting)
    with pytest.raises(ModelError, match=f"lower training.factors to {fitting}$"):
        fit_with(fitting + 1)


def test_without_a_limit_the_gpu_s_free_memory_counts(xp: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "free_memory", lambda xp: 10_000_000)
    with pytest.raises(
        ModelError, match=r"10,000,000 bytes are free: lower training.factors to \d+$"
    ):
        sweeps(many(), random_start((300, 90), 200), flat(factors=200), 1, xp=xp)


def test_a_gpu_too_small_for_any_factors_fails_before_computing(xp: Any):
    with pytest.raises(
        ModelError,
        match=r"cells .*raise training.max_gpu_memory_gib, or lower confidence.window_days$",
    ):
        sweeps(
            many(), random_start((300, 90), 8), flat(factors=8, max_gpu_memory_gib=1e-6), 1, xp=xp
        )


def test_out_of_memory_names_the_setting_to_lower(xp: Any, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise MemoryError("Out of memory allocating 4,096 bytes")

    monkeypatch.setattr(normal_equations, "gram_float64", full)
    with pytest.raises(
        ModelError,
        match=r"allocating 4,096 bytes; [\d,]+ bytes are free: lower training.max_gpu_memory_gib",
    ):
        sweeps(many(), random_start((300, 90), 8), flat(factors=8), 1, xp=xp)


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


@pytest.mark.parametrize(("needed", "freed"), [(60, False), (61, True)])
def test_memory_that_cupy_caches_counts_towards_the_limit(needed: int, freed: bool):
    calls = []
    pool = SimpleNamespace(
        free_bytes=lambda: 40, total_bytes=lambda: 70, free_all_blocks=lambda: calls.append("free")
    )
    device.free_memory_for(SimpleNamespace(get_default_memory_pool=lambda: pool), needed, 100)
    assert bool(calls) == freed


def test_peak_memory_is_remembered_when_memory_is_freed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(device, "_peak", 0)
    held = [30]
    pool = SimpleNamespace(
        free_bytes=lambda: 20,
        total_bytes=lambda: held[0],
        free_all_blocks=lambda: held.__setitem__(0, 10),
    )
    xp = SimpleNamespace(get_default_memory_pool=lambda: pool)
    device.free_memory_for(xp, 90, 100)
    assert held == [10]
    assert device.gpu_peak_memory(xp) == 30
    held[0] = 50
    assert device.gpu_peak_memory(xp) == 50


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


@pytest.mark.parametrize("n", [1, 7, 300, 400])
@pytest.mark.parametrize("values", ["distinct", "tied"])
def test_lists_equal_those_of_the_cpu(
    xp: Any, n: int, values: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu, "_MAX_NUMBERS", 10_000)  # several blocks, the last not full
    rng = np.random.default_rng(n)
    draw = rng.standard_normal if values == "distinct" else lambda size: rng.integers(-2, 3, size)
    users, items = (draw((size, 5)).astype(np.float32) for size in (101, 300))
    users[7] = 0
    seen = sparse.csr_matrix(rng.random((101, 300)) < 0.3, dtype=np.float32)
    for chosen in (
        {},
        {"seen": seen},
        {"eligible": rng.random(300) < 0.5},
        {"seen": seen, "eligible": rng.random(300) < 0.5},
    ):
        ids, scores = top_n(users, items, n, xp=xp, **chosen)
        expected_ids, expected_scores = cpu_top_n(users, items, n, **chosen)
        assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)


def test_lists_take_no_more_memory_than_allowed(xp: Any):
    if xp is not np:
        pytest.skip("CuPy's pool keeps the memory of earlier tests")
    users, items = np.ones((3000, 8), np.float32), np.ones((2000, 8), np.float32)
    results = users.shape[0] * 5 * 8
    peaks = {}
    for mib in (2, 8, None):
        tracemalloc.start()
        top_n(users, items, 5, max_memory_gib=mib and mib / 2**10, xp=xp)
        peaks[mib] = (tracemalloc.get_traced_memory()[1] - results) / 2**20
        tracemalloc.stop()
    assert peaks[2] < 2
    assert 2 < peaks[8] < 8 < peaks[None]


def test_no_users_and_no_items_give_empty_lists(xp: Any):
    users, items = np.ones((2, 2), np.float32), np.ones((3, 2), np.float32)
    assert top_n(users[:0], items, 2, xp=xp)[0].shape == (0, 2)
    assert top_n(users, items[:0], 2, xp=xp)[0].tolist() == [[-1, -1]] * 2
    assert top_n(users, items, 2, eligible=np.zeros(3, bool), xp=xp)[0].tolist() == [[-1, -1]] * 2
    assert (
        top_n(users, items, 3, seen=sparse.csr_matrix(np.ones((2, 3), np.float32)), xp=xp)[
            0
        ].tolist()
        == [[-1, -1, -1]] * 2
    )


def test_the_gpu_is_named_or_the_reason_why_there_is_none():
    result = device.find_gpu()
    assert (result.name is not None) != bool(result.reason)


def test_without_a_gpu_the_solver_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "find_gpu", lambda: device.Gpu(None, "cudaErrorInsufficientDriver"))
    with pytest.raises(ModelError, match="no GPU to compute on: cudaErrorInsufficientDriver"):
        sweeps(many(), random_start((300, 90), 4), flat(factors=4), 1)
    with pytest.raises(ModelError, match="cudaErrorInsufficientDriver"):
        fit(many(), flat(factors=4, solver="gpu"), iterations=1)
    with pytest.raises(ModelError, match="no GPU to compute on"):
        top_n(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), 1)


@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'cupy'"),
        ImportError("libcublas.so.12:\n  no such file"),
        RuntimeError("x"),
    ],
)
def test_no_failure_of_cupy_is_raised(failure: Exception, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setitem(sys.modules, "cupy", type("Broken", (), {"__getattr__": fail})())
    result = device.find_gpu.__wrapped__()
    assert result.name is None
    assert str(failure).split()[0] in result.reason and "\n" not in result.reason


@pytest.mark.parametrize(
    ("driver_file", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  "
            "Sun May 12 19:39:15 UTC 2024\n",
            "535.183.01",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
            "GCC version: 12.2.0 \n",
            "570.86.15",
        ),
        ("", ""),
    ],
)
def test_the_gpu_comes_with_the_versions_of_driver_and_libraries(
    driver_file: str, driver: str, monkeypatch: pytest.MonkeyPatch
):
    runtime = SimpleNamespace(
        getDeviceProperties=lambda number: {"name": b"a GPU"}, runtimeGetVersion=lambda: 12090
    )
    cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(id=0))
    monkeypatch.setitem(
        sys.modules, "cupy", SimpleNamespace(cuda=cuda, asnumpy=np.asarray, __version__="14.2.0")
    )
    trial = device._trial(np)
    monkeypatch.setattr(device, "_trial", lambda xp: trial)
    monkeypatch.setattr(Path, "read_text", lambda path: driver_file)
    versions = {"driver": driver, "cuda": "12.9", "cupy": "14.2.0"}
    assert device.find_gpu.__wrapped__() == device.Gpu("a GPU", versions=versions)


def test_a_gpu_with_other_results_is_not_used(monkeypatch: pytest.MonkeyPatch):
    runtime = SimpleNamespace(getDeviceProperties=lambda number: {"name": b"a GPU"})
    cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(id=0))
    broken = SimpleNamespace(cuda=cuda, asnumpy=np.ones_like)
    trial = device._trial(np)
    monkeypatch.setitem(sys.modules, "cupy", broken)
    monkeypatch.setattr(device, "_trial", lambda xp: trial)
    assert device.find_gpu.__wrapped__() == device.Gpu(
        None, "a GPU gives other solutions than the CPU: update its driver or CuPy"
    )
