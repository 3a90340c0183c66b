"""Implicit-feedback ALS (Hu, Koren & Volinsky 2008) and top-n lists on a GPU, with CuPy.

All functions take the array module as `xp`, so NumPy can run the same lines on the CPU.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.als import device, normal_equations
from recsys_ops.als.factors import Callback, Factors, row_regularization
from recsys_ops.als.normal_equations import Array
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings

_GIB = 2**30
# Numbers in one array of a batch, 1 GiB: more is not faster, and 32-bit indices suffice.
_MAX_NUMBERS = 1 << 28
_MAX_ROWS = 65_535  # in a batch: CUDA's limit of a grid's second and third side
_LANE = 128  # neighbouring scores of a row, of which `top_n` keeps one maximum


@dataclass(frozen=True)
class _Batch:
    """Rows of about the same degree, solved together."""

    rows: Array
    begin: Array  # each row's first cell
    degree: Array  # each row's number of cells
    width: int  # the largest degree
    exact: bool
    run: int  # how many cells of a row are in memory at a time
    needs: int  # bytes


@dataclass(frozen=True)
class _Side:
    """The stored cells by row, in GPU memory."""

    column: Array
    confidence: Array
    regularization: Array
    batches: list[_Batch]


def sweeps(
    user_items: sparse.csr_matrix,
    start: Factors,
    settings: TrainingSettings,
    iterations: int,
    callback: Callback | None = None,
    *,
    xp: Any = None,
) -> Factors:
    """Do `iterations` sweeps: each solves all users, then all items, see `normal_equations`.

    xp : the array module, CuPy when None · the other arguments : as in `fit.fit`

    Raises ModelError when there is no GPU, when it has too little memory, and when confidences
    overflow float32.
    """
    xp = xp or device.cupy()
    try:
        # `fit` checks that the factors are finite; no warnings of single steps
        with np.errstate(all="ignore"):
            return _sweeps(xp, user_items, start, settings, iterations, callback)
    except MemoryError as error:
        raise device.memory_error(
            xp, str(error), "lower training.max_gpu_memory_gib or training.factors"
        ) from error
    except np.linalg.LinAlgError as error:
        raise ModelError(
            "a row's equations cannot be solved in float32 "
            f"(largest confidence {user_items.data.max():g}, "
            f"regularization {settings.regularization}): "
            "lower confidence.alpha or raise training.regularization"
        ) from error


def top_n(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    n: int,
    *,
    seen: sparse.csr_matrix | None = None,
    eligible: NDArray[np.bool_] | None = None,
    max_memory_gib: float | None = None,
    xp: Any = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`recsys_ops.als.top_n.top_n` on the GPU: the same arguments, the same lists.

    max_memory_gib : how much GPU memory may be used, 80 % of what is free when None. The scores
        take at most 4 GiB at a time; the items and the scores of one user are always loaded.

    Raises ModelError when there is no GPU, and when it has too little memory.
    """
    xp = xp or device.cupy()
    n_users, n_items = len(user_factors), len(item_factors)
    ids = np.full((n_users, n), -1, dtype=np.int32)
    scores = np.full((n_users, n), -np.inf, dtype=np.float32)
    hidden = np.zeros(n_items, bool) if eligible is None else ~eligible
    if n_users == 0 or hidden.all():
        return ids, scores
    lanes = -(-n_items // _LANE)
    hidden = np.flatnonzero(np.append(hidden, np.ones(lanes * _LANE - n_items, bool)))
    allowed = 0.8 * device.free_memory(xp) if max_memory_gib is None else max_memory_gib * _GIB
    item_bytes = 4 * user_factors.shape[1] * lanes * _LANE
    # 16 bytes a score: itself, a copy of it when the maxima are computed, and the seen cells
    budget = int(min(_MAX_NUMBERS, (allowed - item_bytes) / 16))
    rows = min(max(1, budget // (lanes * _LANE)), _MAX_ROWS)
    device.free_memory_for(xp, item_bytes + 16 * rows * lanes * _LANE, int(allowed))
    try:
        items = xp.zeros((user_factors.shape[1], lanes * _LANE), dtype=xp.float32)
        items[:, :n_items] = xp.asarray(item_factors).T
        hidden = xp.asarray(hidden)
        for start in range(0, n_users, rows):
            block = slice(start, start + rows)
            table = xp.asarray(user_factors[block]) @ items
            table[:, hidden] = -np.inf
            if seen is not None:
                seen_cells = seen[block]
                row = np.repeat(
                    np.arange(seen_cells.shape[0], dtype=np.int32), np.diff(seen_cells.indptr)
                )
                table[xp.asarray(row), xp.asarray(seen_cells.indices)] = -np.inf
            best, best_scores = _best(xp, table.reshape(len(table), lanes, _LANE), min(n, n_items))
            ids[block, : best.shape[1]] = device.to_host(xp, best)
            scores[block, : best.shape[1]] = device.to_host(xp, best_scores)
    except MemoryError as error:
        raise device.memory_error(
            xp, str(error), "free some of it, or set training.solver to cpu"
        ) from error
    scores[~user_factors.any(axis=1)] = -np.inf
    ids[scores == -np.inf] = -1
    return ids, scores


def _sweeps(
    xp: Any,
    user_items: sparse.csr_matrix,
    start: Factors,
    settings: TrainingSettings,
    iterations: int,
    callback: Callback | None,
) -> Factors:
    memory = _batch_memory(xp, user_items, settings)
    user_weights, item_weights = row_regularization(user_items, settings)
    users = _side(xp, user_items, user_weights, settings, memory)
    items = _side(xp, user_items.T.tocsr(), item_weights, settings, memory)
    user, item = xp.asarray(start.user), xp.asarray(start.item)
    for iteration in range(iterations):
        user = _half_sweep(xp, users, user, item, memory)
        item = _half_sweep(xp, items, item, user, memory)
        if callback is not None:
            callback(iteration, partial(_on_host, xp, user, item))
    return _on_host(xp, user, item)


def _on_host(xp: Any, user: Array, item: Array) -> Factors:
    return Factors(device.to_host(xp, user), device.to_host(xp, item))


def _half_sweep(xp: Any, side: _Side, own: Array, other: Array, memory: int) -> Array:
    """The factors of one side, given those of the other. A row without cells gets zeros."""
    eigenvalues, basis = xp.linalg.eigh(normal_equations.gram_float64(xp, other))
    spectrum, basis = xp.maximum(eigenvalues, 0).astype(xp.float32), basis.astype(xp.float32)
    rotated = other @ basis
    updated = xp.zeros_like(own)

    # a function, so that a batch's arrays are freed before those of the next one are allocated
    def solve(batch: _Batch) -> None:
        scale = 1 / xp.sqrt(spectrum + side.regularization[batch.rows][:, None])
        parts = _parts(xp, side, batch, rotated, scale)
        if batch.exact:
            z = normal_equations.solve_exactly(xp, parts, batch.width, own.shape[1])
        else:
            z = normal_equations.solve_in_steps(xp, parts, own[batch.rows] @ basis / scale)
        updated[batch.rows] = (z * scale) @ basis.T

    for batch in side.batches:
        device.free_memory_for(xp, batch.needs, memory)
        solve(batch)
    return updated


def _parts(
    xp: Any, side: _Side, batch: _Batch, rotated: Array, scale: Array
) -> normal_equations.Parts:
    """A batch's cells: gathered once if all fit in memory, else at every call."""

    def gathered() -> Iterator[tuple[Array, Array]]:
        for first in range(0, batch.width, batch.run):
            run = range(first, min(first + batch.run, batch.width))
            yield normal_equations.gather(
                xp, (side.column, side.confidence), (batch.begin, batch.degree), run, rotated, scale
            )

    if batch.run < batch.width:
        return gathered
    parts = list(gathered())
    return lambda: parts


def _side(
    xp: Any,
    rows: sparse.csr_matrix,
    regularization: NDArray[np.float32],
    settings: TrainingSettings,
    memory: int,
) -> _Side:
    indptr = rows.indptr.astype(np.int64)
    degree = np.diff(indptr)
    order = np.argsort(degree, kind="stable")
    order = order[degree[order] > 0]
    # a batch's widest row has at most √2 times as many cells as its narrowest
    buckets = np.ceil(np.exp2(np.ceil(2 * np.log2(degree[order])) / 2)).astype(int)
    batches = []
    for bucket in np.unique(buckets).tolist():
        same_bucket = order[buckets == bucket]
        for block in _blocks(len(same_bucket), bucket, settings.factors, memory):
            chosen = same_bucket[block]
            width = int(degree[chosen[-1]])
            exact = normal_equations.is_solved_exactly(bucket, settings.factors)
            batches.append(
                _Batch(
                    rows=xp.asarray(chosen),
                    begin=xp.asarray(indptr[chosen]),
                    degree=xp.asarray(degree[chosen]),
                    width=width,
                    exact=exact,
                    run=min(width, _max_run(settings.factors, memory)),
                    needs=min(
                        memory,
                        len(chosen) * normal_equations.batch_bytes(width, settings.factors, exact),
                    ),
                )
            )
    return _Side(
        xp.asarray(rows.indices.astype(np.int32)),
        xp.asarray(rows.data.astype(np.float32)),
        xp.asarray(regularization),
        batches,
    )


def _blocks(count: int, width: int, factors: int, memory: int) -> Iterator[slice]:
    """Slices of `count` rows of at most `width` cells, as many rows at a time as fit."""
    row_bytes = normal_equations.batch_bytes(
        width, factors, normal_equations.is_solved_exactly(width, factors)
    )
    rows = max(1, min(memory // row_bytes, _MAX_NUMBERS // (width * factors), _MAX_ROWS))
    return (slice(start, start + rows) for start in range(0, count, rows))


def _max_run(factors: int, memory: int) -> int:
    """How many cells of one row fit at a time, never fewer than `factors`."""
    fixed = normal_equations.batch_bytes(0, factors, False) + 16 * factors**2
    cell_bytes = normal_equations.batch_bytes(1, factors, False) - normal_equations.batch_bytes(
        0, factors, False
    )
    return max(factors, min((memory - fixed) // cell_bytes, _MAX_NUMBERS // factors))


def _batch_memory(xp: Any, user_items: sparse.csr_matrix, settings: TrainingSettings) -> int:
    """Bytes that a batch may use: the allowed memory without what is resident."""
    limit = settings.max_gpu_memory_gib
    allowed = 0.8 * device.free_memory(xp) if limit is None else limit * _GIB
    rows: int = sum(user_items.shape)

    def resident(factors: int) -> int:
        # the cells by user and by item; factors, updated factors and rotated ones; the sum for the
        # eigenbasis; indices
        eigenbasis = 8 * factors * (normal_equations.GRAM_ROWS + 4 * factors)
        return int(16 * user_items.nnz) + 8 * rows * factors + eigenbasis + 48 * rows

    def least(factors: int) -> int:
        return resident(factors) + normal_equations.batch_bytes(factors, factors, True)

    if allowed < least(settings.factors):
        needed = (
            f"{least(settings.factors):,} bytes for {user_items.nnz:,} cells and {rows:,} rows of "
            f"{settings.factors} factors do not fit in {int(allowed):,}"
        )
        # the largest number of factors that fits, 0 if none does
        fitting = bisect_right(range(1, settings.factors), allowed, key=least)
        remedy = "lower confidence.window_days"
        if fitting:
            remedy = f"lower training.factors to {fitting}"
        if limit is not None:
            remedy = f"raise training.max_gpu_memory_gib, or {remedy}"
        raise device.memory_error(xp, needed, remedy)
    return int(allowed) - resident(settings.factors)


def _best(xp: Any, table: Array, n: int) -> tuple[Array, Array]:
    """Column and score of the `n` largest of each row, largest first, equal ones by column.

    One maximum of each lane is kept. So finding the next best reads these and one lane. A sort of
    all scores, which CuPy's partition does, would read everything many times.

    table : (rows, lanes, lane), overwritten
    """
    rows, columns, scores = xp.arange(len(table)), [], []
    peaks = table.max(axis=2)
    for _ in range(n):
        lane = peaks.argmax(axis=1)
        lane_scores = table[rows, lane]
        offset = lane_scores.argmax(axis=1)
        columns.append(lane * _LANE + offset)
        scores.append(peaks[rows, lane])
        table[rows, lane, offset] = -np.inf
        lane_scores[rows, offset] = -np.inf
        peaks[rows, lane] = lane_scores.max(axis=1)
    return xp.stack(columns, axis=1), xp.stack(scores, axis=1)
