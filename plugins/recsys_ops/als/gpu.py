"""Implicit-feedback ALS (Hu, Koren & Volinsky 2008) and top-N lists on a graphics card, with CuPy.

Everything is written against an array module, so that NumPy runs the same lines on the CPU.
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
_MOST_NUMBERS = (
    1 << 28
)  # in one array of a batch, 1 GiB: more makes nothing faster, and 32-bit indices suffice
_MOST_ROWS = 65_535  # in a batch: CUDA's limit of a grid's second and third side
_LANE = 128  # scores of one row that `top_n` keeps one maximum of


@dataclass(frozen=True)
class _Batch:
    """Rows of about the same degree, solved together."""

    rows: Array
    begin: Array  # each row's first cell
    degree: Array
    width: int  # the largest degree
    exact: bool
    run: int  # the cells of a row held at a time
    needs: int  # bytes


@dataclass(frozen=True)
class _Side:
    """The stored cells by row, on the card."""

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
    """`iterations` times all users, then all items, each row solved as `equations` says. Arguments as in `fitting.fit`.

    xp : the array module, CuPy when None

    Raises ModelError when there is no card, when its memory does not suffice or when confidences overflow float32.
    """
    xp = xp or device.cupy()
    try:
        # whether the factors stay finite is looked at in the end; NumPy need not warn of each step on the way
        with np.errstate(all="ignore"):
            return _sweeps(xp, user_items, start, settings, iterations, callback)
    except MemoryError as error:
        raise device.memory_error(
            xp, str(error), "lower training.max_gpu_memory_gib or training.factors"
        ) from error
    except np.linalg.LinAlgError as error:
        raise ModelError(
            f"a row's equations cannot be solved in float32 (largest confidence {user_items.data.max():g}, regularization "
            f"{settings.regularization}): lower confidence.alpha or raise training.regularization"
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
    """`recsys_ops.als.top_n.top_n` on the card: the same arguments, the same lists.

    max_memory_gib : how much of the card's memory may be taken, 80 % of what is free when None; of the scores at most 4 GiB at a
        time, and of them and the items never less than one user's

    Raises ModelError when there is no card or its memory does not suffice.
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
    held = 4 * user_factors.shape[1] * lanes * _LANE
    # the scores, a copy of them when their maxima are taken, and the cells that were seen
    budget = int(min(_MOST_NUMBERS, (allowed - held) / 16))
    rows = min(max(1, budget // (lanes * _LANE)), _MOST_ROWS)
    device.free_memory_for(xp, held + 16 * rows * lanes * _LANE, int(allowed))
    try:
        items = xp.zeros((user_factors.shape[1], lanes * _LANE), dtype=xp.float32)
        items[:, :n_items] = xp.asarray(item_factors).T
        hidden = xp.asarray(hidden)
        for start in range(0, n_users, rows):
            block = slice(start, start + rows)
            table = xp.asarray(user_factors[block]) @ items
            table[:, hidden] = -np.inf
            if seen is not None:
                part = seen[block]
                row = np.repeat(np.arange(part.shape[0], dtype=np.int32), np.diff(part.indptr))
                table[xp.asarray(row), xp.asarray(part.indices)] = -np.inf
            best, best_scores = _best(xp, table.reshape(len(table), lanes, _LANE), min(n, n_items))
            ids[block, : best.shape[1]], scores[block, : best.shape[1]] = (
                device.to_host(xp, best),
                device.to_host(xp, best_scores),
            )
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
    memory = _memory(xp, user_items, settings)
    cells, weights = (user_items, user_items.T.tocsr()), row_regularization(user_items, settings)
    users, items = (
        _side(xp, rows, of_rows, settings, memory)
        for rows, of_rows in zip(cells, weights, strict=True)
    )
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
    values, basis = xp.linalg.eigh(normal_equations.gram(xp, other))
    spread, basis = xp.maximum(values, 0).astype(xp.float32), basis.astype(xp.float32)
    rotated = other @ basis
    updated = xp.zeros_like(own)

    def solve(batch: _Batch) -> None:
        scale = 1 / xp.sqrt(spread + side.regularization[batch.rows][:, None])
        parts = _parts(xp, side, batch, rotated, scale)
        if batch.exact:
            z = normal_equations.exact(xp, parts, batch.width, own.shape[1])
        else:
            z = normal_equations.three_steps(xp, parts, own[batch.rows] @ basis / scale)
        updated[batch.rows] = (z * scale) @ basis.T

    for batch in side.batches:
        device.free_memory_for(xp, batch.needs, memory)
        solve(
            batch
        )  # in a function, so that a batch's arrays are free before the next one's are made
    return updated


def _parts(
    xp: Any, side: _Side, batch: _Batch, rotated: Array, scale: Array
) -> normal_equations.Parts:
    """A batch's cells, gathered once where they are held whole, else at every call."""

    def gathered() -> Iterator[tuple[Array, Array]]:
        for first in range(0, batch.width, batch.run):
            run = range(first, min(first + batch.run, batch.width))
            yield normal_equations.gather(
                xp, (side.column, side.confidence), (batch.begin, batch.degree), run, rotated, scale
            )

    if batch.run < batch.width:
        return gathered
    held = list(gathered())
    return lambda: held


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
    # rows are at most √2 times as wide as the narrowest with them
    buckets = np.ceil(np.exp2(np.ceil(2 * np.log2(degree[order])) / 2)).astype(int)
    batches = []
    for bucket in np.unique(buckets).tolist():
        together = order[buckets == bucket]
        for block in _blocks(len(together), bucket, settings.factors, memory):
            chosen = together[block]
            width = int(degree[chosen[-1]])
            exact = normal_equations.solved_exactly(bucket, settings.factors)
            batches.append(
                _Batch(
                    rows=xp.asarray(chosen),
                    begin=xp.asarray(indptr[chosen]),
                    degree=xp.asarray(degree[chosen]),
                    width=width,
                    exact=exact,
                    run=min(width, _longest(settings.factors, memory)),
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
    """`count` rows of at most `width` cells, as many at a time as fit."""
    row = normal_equations.batch_bytes(
        width, factors, normal_equations.solved_exactly(width, factors)
    )
    rows = max(1, min(memory // row, _MOST_NUMBERS // (width * factors), _MOST_ROWS))
    return (slice(start, start + rows) for start in range(0, count, rows))


def _longest(factors: int, memory: int) -> int:
    """The cells of one row that fit at a time, never fewer than `factors`."""
    fixed = normal_equations.batch_bytes(0, factors, False) + 16 * factors**2
    cell = normal_equations.batch_bytes(1, factors, False) - normal_equations.batch_bytes(
        0, factors, False
    )
    return max(factors, min((memory - fixed) // cell, _MOST_NUMBERS // factors))


def _memory(xp: Any, user_items: sparse.csr_matrix, settings: TrainingSettings) -> int:
    """Bytes that a batch may take: what may be used, less what stays there all the time."""
    given = settings.max_gpu_memory_gib
    allowed = 0.8 * device.free_memory(xp) if given is None else given * _GIB
    rows: int = sum(user_items.shape)

    def resident(factors: int) -> int:
        # the cells by user and by item; factors, their successors and their rotation; the sum for the eigenbasis; indices
        eigenbasis = 8 * factors * (normal_equations.GRAM_ROWS + 4 * factors)
        return int(16 * user_items.nnz) + 8 * rows * factors + eigenbasis + 48 * rows

    def least(factors: int) -> int:
        return resident(factors) + normal_equations.batch_bytes(factors, factors, True)

    if allowed < least(settings.factors):
        wanted = f"{least(settings.factors):,} bytes for {user_items.nnz:,} cells and {rows:,} rows of {settings.factors} factors"
        fit = bisect_right(
            range(1, settings.factors), allowed, key=least
        )  # the largest number, 0 where none
        lower = f"lower training.factors to {fit}" if fit else "lower confidence.window_days"
        do = lower if given is None else f"raise training.max_gpu_memory_gib, or {lower}"
        raise device.memory_error(xp, f"{wanted} do not fit in {int(allowed):,}", do)
    return int(allowed) - resident(settings.factors)


def _best(xp: Any, table: Array, n: int) -> tuple[Array, Array]:
    """Column and score of the `n` largest of each row, largest first, equal ones by column; empties `table`.

    Of each lane of a row one maximum is kept, so that the next best is looked for among these and in one lane: a sort of all,
    which is what CuPy's partition does, reads everything many times.

    table : (rows, lanes, lane)
    """
    rows, columns, scores = xp.arange(len(table)), [], []
    peaks = table.max(axis=2)
    for _ in range(n):
        lane = peaks.argmax(axis=1)
        inside = table[rows, lane]
        at = inside.argmax(axis=1)
        columns.append(lane * _LANE + at)
        scores.append(peaks[rows, lane])
        table[rows, lane, at] = -np.inf
        inside[rows, at] = -np.inf
        peaks[rows, lane] = inside.max(axis=1)
    return xp.stack(columns, axis=1), xp.stack(scores, axis=1)
