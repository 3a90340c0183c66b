"""ALS sweeps on the CPU, in a basis where the dense part of every row's equations is diagonal."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.als.factors import Callback, Factors, row_regularization
from recsys_ops.jit import jit
from recsys_ops.settings import TrainingSettings

_STEPS = 3  # of conjugate gradients, as many as `implicit` takes
# A row with a smaller squared error is solved; float32 cannot divide by much smaller numbers.
_SMALLEST = np.float32(1e-30)
# Parts of a half-sweep. A fixed number: the result does not depend on the number of threads.
_CHUNKS = 256
_BLOCK = 1 << 15  # rows of factors multiplied at a time
_ZERO, _ONE = np.float32(0), np.float32(1)
# without "ninf" and "nnan": an overflow must stay visible
_FAST: Any = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}


def sweeps(
    user_items: sparse.csr_matrix,
    start: Factors,
    settings: TrainingSettings,
    iterations: int,
    callback: Callback | None = None,
) -> Factors:
    """Do `iterations` sweeps: each improves all users, then all items. Arguments as in `fit.fit`.

    The matrix of a row's equations (Hu, Koren & Volinsky 2008, eq. 4) is YᵀY + λI plus one rank-one
    term for each stored cell. In the eigenbasis of YᵀY its dense part is diagonal. It then costs a
    step of conjugate gradients (Takács, Pilászy & Tikk 2011) nothing and is the preconditioner, so
    a row costs 4 · (steps + 1) · factors operations for each cell, and none in factors².

    Memory beside start and result: the transposed matrix and one copy of the factors of one side.
    """
    user, item = start.user.copy(), start.item.copy()
    item_users = user_items.T.tocsr()
    user_weights, item_weights = row_regularization(user_items, settings)
    # BLAS threads beside the pool's make it many times slower, and their number changes the last
    # bits of a sum
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        for iteration in range(iterations):
            _half_sweep(user_items, user, item, user_weights, pool)
            _half_sweep(item_users, item, user, item_weights, pool)
            if callback:
                callback(iteration, lambda: Factors(user.copy(), item.copy()))
    return Factors(user, item)


def gram_float32_blocks(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    """``factorsᵀ @ factors``, (factors, factors): blocks of rows in float32, their sum in float64.

    See `normal_equations.gram_float64`, which is more exact and slower.
    """
    total = np.zeros((factors.shape[1], factors.shape[1]))
    for start in range(0, len(factors), _BLOCK):
        block = factors[start : start + _BLOCK]
        total += block.T @ block
    return total


def cell_errors(user_items: sparse.csr_matrix, factors: Factors) -> float:
    """Σ c (1 − x·y)² − (x·y)² over the stored cells: their loss beyond that of empty cells."""
    return float(
        _cell_errors(
            user_items.indptr, user_items.indices, user_items.data, factors.user, factors.item
        )
    )


@jit(fastmath={"reassoc", "contract"})
def _cell_errors(indptr, columns, confidence, x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for row in range(len(x)):
        for j in range(indptr[row], indptr[row + 1]):
            column, score = np.uint64(columns[j]), np.float32(0)
            for k in range(x.shape[1]):
                score += x[row, k] * y[column, k]
            total += confidence[j] * (1 - score) ** 2 - score**2
    return total


def _half_sweep(
    rows: sparse.csr_matrix,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    regularization: NDArray[np.float32],
    pool: Executor,
) -> None:
    """Improve `x`, (n_rows, factors), in place, given `y`, (n_columns, factors).

    regularization : float32, (n_rows,)
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(y), _BLOCK)]
    eigenvalues, basis = np.linalg.eigh(
        sum(pool.map(lambda block: gram_float32_blocks(y[block]), blocks))
    )
    spectrum, basis = np.maximum(eigenvalues, 0).astype(np.float32), basis.astype(np.float32)
    rotated = np.empty_like(y)
    list(pool.map(lambda block: np.matmul(y[block], basis, out=rotated[block]), blocks))

    solve = _kernel(x.shape[1])
    cost = rows.indptr + 4 * np.arange(len(rows.indptr), dtype=np.int64)
    borders = np.unique(np.searchsorted(cost, np.linspace(0, cost[-1], _CHUNKS + 1)))

    def improve(begin: int, end: int) -> None:
        part = x[begin:end] @ basis
        solve(
            rows.indptr[begin : end + 1],
            rows.indices,
            rows.data,
            rotated,
            spectrum,
            regularization[begin:end],
            part,
        )
        np.matmul(part, basis.T, out=x[begin:end])

    list(pool.map(improve, borders[:-1], borders[1:]))


@cache
def _kernel(factors: int) -> Callable[..., None]:
    """The compiled solver of a chunk of rows; a constant length lets the inner loops unroll."""

    @jit(**_FAST)
    def solve(indptr, columns, confidence, y, spectrum, regularization, x):  # type: ignore[no-untyped-def]
        residual, diagonal = np.empty(factors, np.float32), np.empty(factors, np.float32)
        direction, image = np.empty(factors, np.float32), np.empty(factors, np.float32)
        for row in range(len(x)):
            begin, end = indptr[row], indptr[row + 1]
            solution = x[row]
            if begin == end:
                solution[:] = _ZERO
                continue
            for k in range(factors):
                diagonal[k] = spectrum[k] + regularization[row]
                residual[k] = -diagonal[k] * solution[k]
            _add_cells(residual, solution, y, columns, confidence, begin, end, _ONE, factors)
            error = _ZERO
            for k in range(factors):
                direction[k] = residual[k] / diagonal[k]
                error += residual[k] * direction[k]
            for _ in range(_STEPS):
                if error < _SMALLEST:
                    break
                for k in range(factors):
                    image[k] = -diagonal[k] * direction[k]
                _add_cells(image, direction, y, columns, confidence, begin, end, _ZERO, factors)
                curvature = _ZERO
                for k in range(factors):
                    curvature -= direction[k] * image[k]
                length, before, error = error / curvature, error, _ZERO
                for k in range(factors):
                    solution[k] += length * direction[k]
                    residual[k] += length * image[k]
                    error += residual[k] * residual[k] / diagonal[k]
                for k in range(factors):
                    direction[k] = residual[k] / diagonal[k] + error / before * direction[k]

    return solve  # type: ignore[no-any-return]


# Inlined: a call would run differently optimised machine code when compiled and when loaded from
# disk.
@jit(inline="always", **_FAST)
def _add_cells(out, v, y, columns, confidence, begin, end, preference, factors):  # type: ignore[no-untyped-def]
    """out += Σ (preference · c − (c − 1) · y·v) y over the row's cells.

    Four cells at a time, to load and store `out` less often.
    """
    last = end - 1
    for j in range(begin, end, 4):
        j1, j2, j3 = min(j + 1, last), min(j + 2, last), min(j + 3, last)
        c0, c1, c2, c3 = confidence[j], confidence[j1], confidence[j2], confidence[j3]
        # unsigned: no test for a negative index
        i0, i1, i2, i3 = (
            np.uint64(columns[j]),
            np.uint64(columns[j1]),
            np.uint64(columns[j2]),
            np.uint64(columns[j3]),
        )
        s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
        for k in range(factors):
            s0 += y[i0, k] * v[k]
            s1 += y[i1, k] * v[k]
            s2 += y[i2, k] * v[k]
            s3 += y[i3, k] * v[k]
        t0 = preference * c0 - (c0 - _ONE) * s0
        t1 = preference * c1 - (c1 - _ONE) * s1 if j + 1 < end else _ZERO
        t2 = preference * c2 - (c2 - _ONE) * s2 if j + 2 < end else _ZERO
        t3 = preference * c3 - (c3 - _ONE) * s3 if j + 3 < end else _ZERO
        for k in range(factors):
            out[k] += t0 * y[i0, k] + t1 * y[i1, k] + t2 * y[i2, k] + t3 * y[i3, k]
