"""The exact best items for every user, block by block."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

_BLOCK_SCORES = 1 << 22  # 16 MiB of scores at a time and thread; about four times that with the copies


def top_n(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    n: int,
    *,
    seen: sparse.csr_matrix | None = None,
    eligible: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `n` items of highest score ``user · item``, best first, equal scores by item index.

    user_factors : (n_users, factors); a user whose factors are all zero was never trained and gets no list
    item_factors : (n_items, factors)
    seen : csr_matrix, (n_users, n_items); what is stored is left out of the user's list
    eligible : (n_items,); the items that may be listed, all when None

    Returns ids int32 and scores float32, both (n_users, n); where candidates run out, id −1 and score −inf.
    """
    n_users, n_items = len(user_factors), len(item_factors)
    columns = np.arange(n_items) if eligible is None else np.flatnonzero(eligible)
    candidates = np.ascontiguousarray(item_factors[columns].T)
    hidden = None if seen is None else seen[:, columns].tocsr()
    ids = np.full((n_users, n), -1, dtype=np.int32)
    scores = np.full((n_users, n), -np.inf, dtype=np.float32)
    width = min(n, len(columns))
    if width == 0:
        return ids, scores
    rows = max(1, _BLOCK_SCORES // len(columns))

    def fill(start: int) -> None:
        block = slice(start, start + rows)
        all_scores = user_factors[block] @ candidates
        if hidden is not None:
            part = hidden[block]
            all_scores[np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)), part.indices] = -np.inf
        all_scores[~user_factors[block].any(axis=1)] = -np.inf
        best = _best(all_scores, width)
        best_scores = np.take_along_axis(all_scores, best, axis=1)
        ids[block, :width] = np.where(best_scores == -np.inf, -1, columns[best])
        scores[block, :width] = best_scores

    # one BLAS thread each: the blocks already use every core, and the bits do not depend on how many there are
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, n_users, rows)))
    return ids, scores


def _best(scores: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    """Column indices of the `n` largest of each row, largest first, equal ones by index."""
    best = np.argpartition(-scores, n - 1, axis=1)[:, :n] if n < scores.shape[1] else np.tile(np.arange(n), (len(scores), 1))
    last = np.take_along_axis(scores, best, axis=1).min(axis=1, keepdims=True)
    # a partition picks any of several equal scores at its border
    tied = (np.count_nonzero(scores >= last, axis=1) > n) & (last[:, 0] > -np.inf)
    best[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :n]
    best.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
