"""The GPU: how it is found, its memory, and the lists that it finds."""

import re
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from support.als import distance, flat, many, random_start

from recsys_ops.als import device, gpu, normal_equations
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.gpu import sweeps, top_n
from recsys_ops.als.top_n import top_n as cpu_top_n
from recsys_ops.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")


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
