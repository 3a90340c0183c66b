"""The equations of a batch of rows, for an array module `xp`: NumPy on the CPU, CuPy on a GPU.

A row's factors x solve ``(YᵀY + λI + Gᵀ(C − I)G) x = Gᵀc`` (Hu, Koren & Volinsky 2008, eq. 4).
Here c are the row's stored confidences, C is their diagonal matrix, G has the factors of their
columns and Y those of all columns. In the eigenbasis of YᵀY the matrix D = YᵀY + λI is diagonal.
With z = D^½ x, H = (C − I)^½ G D^-½ and t = (C − I)^-½ c the equations are

    (I + HᵀH) z = Hᵀt        or, the same,        z = Hᵀu  with  (I + HHᵀ) u = t

and the smaller of the two systems is solved. λ may differ from row to row, and conjugate gradients
need no preconditioner.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Array = Any  # of `xp`
# H and t of a batch, a run of cells at a time; each call begins with the first run
Parts = Callable[[], Iterable[tuple[Array, Array]]]

# Rows are solved exactly up to this size of the smaller system, and in three steps above it. A row
# of degree d with f factors costs 2df² + f³/3 operations and 11df + 9f² floats of traffic exactly,
# 16df and 14df in three steps. For d = 1000 at 67 TFLOP/s and 4.8 TB/s that is 1.4 against 1.5 µs
# with f = 128, 3.9 against 3.0 with 256, 28 against 9 with 800 (benchmarks/als/floor.py).
LARGEST_SYSTEM = 256
STEPS = 3  # Takács, Pilászy & Tikk 2011

GRAM_ROWS = 1 << 15  # summed at a time

# With a confidence of 1, that of an empty cell, C − I is singular. This is half the distance from 1
# to the next float32.
_SMALLEST_EXTRA = 2.0**-24
# Beside a very large entry float32 would lose the identity. Without this share, equal columns under
# an enormous confidence leave a matrix that is not positive definite.
_SMALLEST_SHARE = 2.0**-20


def is_solved_exactly(width: int, factors: int) -> bool:
    """Whether rows of `width` cells are solved exactly, not in three steps."""
    return min(width, factors) <= LARGEST_SYSTEM


def batch_bytes(width: int, factors: int, exact: bool) -> int:
    """The most bytes that one row of `width` cells takes while its batch is solved."""
    system = min(width, factors) if exact else 0
    # H and its transpose; the matrix, its copy, its factor and one to add; the cells' numbers; the
    # vectors
    return 4 * (2 * width * factors + 4 * system**2 + 12 * width + 12 * factors)


def gram_float64(xp: Any, factors: Array) -> Array:
    """``factorsᵀ @ factors``, (factors, factors), computed in float64.

    See `cpu.gram_float32_blocks`, which is faster and less exact.
    """
    total = xp.zeros((factors.shape[1],) * 2, dtype=xp.float64)
    for start in range(0, len(factors), GRAM_ROWS):
        block = factors[start : start + GRAM_ROWS].astype(xp.float64)
        total += block.T @ block
    return total


def gather(
    xp: Any,
    cells: tuple[Array, Array],
    row: tuple[Array, Array],
    run: range,
    other: Array,
    scale: Array,
) -> Array:
    """H, (rows, run, factors), and t, (rows, run), of a run of cells of each row.

    Both are zero beyond a row's end.

    cells : column and confidence of every stored cell
    row : each row's first cell and number of cells
    run : which of a row's cells
    other : (n_columns, factors), in the eigenbasis
    scale : (rows, factors), D^-½
    """
    (column, confidence), (begin, degree) = cells, row
    offset = xp.arange(run.start, run.stop)
    cell = xp.minimum(begin[:, None] + offset, len(column) - 1)
    stored = offset < degree[:, None]
    weight = confidence[cell]
    root = xp.sqrt(xp.maximum(weight - 1, _SMALLEST_EXTRA))
    h = xp.take(other, column[cell], axis=0)
    h *= (root * stored)[:, :, None]
    h *= scale[:, None, :]
    return h, weight / root * stored


def solve_exactly(xp: Any, parts: Parts, width: int, factors: int) -> Array:
    """z, (rows, factors), by Cholesky of the smaller system.

    Only a batch that is wider than `factors` may have several parts.
    """
    if width <= factors:
        ((h, t),) = parts()
        return _transposed(h, _positive_solve(xp, _plus_identity(xp, h @ h.transpose(0, 2, 1)), t))
    left = right = None
    for h, t in parts():
        product, sums = h.transpose(0, 2, 1) @ h, _transposed(h, t)
        left, right = (product, sums) if left is None else (left + product, right + sums)
    return _positive_solve(xp, _plus_identity(xp, left), right)


def solve_in_steps(xp: Any, parts: Parts, z: Array) -> Array:
    """z, (rows, factors), after three steps of conjugate gradients from the given z."""
    tiny = float(np.finfo(np.float32).tiny)
    residual = -z
    for h, t in parts():
        residual = residual + _transposed(h, t - _times(h, z))
    direction, squared = residual, (residual * residual).sum(axis=1, keepdims=True)
    for _ in range(STEPS):
        image = direction
        for h, _t in parts():
            image = image + _transposed(h, _times(h, direction))
        step = squared / xp.maximum((direction * image).sum(axis=1, keepdims=True), tiny)
        z = z + step * direction
        residual = residual - step * image
        before, squared = squared, (residual * residual).sum(axis=1, keepdims=True)
        direction = residual + squared / xp.maximum(before, tiny) * direction
    return z


def _times(h: Array, vectors: Array) -> Array:
    return (h @ vectors[:, :, None])[:, :, 0]


def _transposed(h: Array, vectors: Array) -> Array:
    # the vector stands on the left because CuPy copies a transposed operand of a batched product
    return (vectors[:, None, :] @ h)[:, 0, :]


def _plus_identity(xp: Any, matrices: Array) -> Array:
    """(batch, n, n) with the identity added in place."""
    n = matrices.shape[-1]
    diagonal = matrices.reshape(len(matrices), n * n)[:, :: n + 1]
    diagonal += xp.maximum(1, _SMALLEST_SHARE * diagonal)
    return matrices


def _positive_solve(xp: Any, left: Array, right: Array) -> Array:
    """Solve the systems (batch, n, n) and (batch, n).

    Raises LinAlgError when one is not positive definite.
    """
    if xp is np:
        lower = np.linalg.cholesky(left)
        return np.linalg.solve(lower.transpose(0, 2, 1), np.linalg.solve(lower, right[:, :, None]))[
            :, :, 0
        ]
    import cupyx.lapack

    # only the factorisation is checked: cuSOLVER does not document a status of `potrs`
    with cupyx.errstate(linalg="raise"):
        lower = xp.linalg.cholesky(left)
    return cupyx.lapack.potrs(lower, right, lower=True)
