"""The exact best items for every user, without scoring most of the items."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.jit import jit

# A thread holds the scores of one tile, 2 MiB, and one bit for each of its users and each item, 64 bytes an item
_USERS = 512
_ITEMS = 1024
_CHUNK = 64  # divides _ITEMS


def top_n(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    n: int,
    *,
    seen: sparse.csr_matrix | None = None,
    eligible: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `n` items of highest score ``user · item``, best first, equal scores by item index.

    A user meets the items in the order of their bounds (see `_norms`), a tile at a time, until no later item can enter the list.

    user_factors : (n_users, factors); a user whose factors are all zero was never trained and gets no list
    item_factors : (n_items, factors)
    seen : csr_matrix, (n_users, n_items); what is stored is left out of the user's list
    eligible : (n_items,); the items that may be listed, all when None

    Returns ids int32 and scores float32, both (n_users, n); where candidates run out, id −1 and score −inf. A score that is
    not a number is never listed.
    """
    n_users, n_items = len(user_factors), len(item_factors)
    ids = np.full((n_users, n), -1, dtype=np.int32)
    scores = np.full((n_users, n), -np.inf, dtype=np.float32)
    columns = np.arange(n_items) if eligible is None else np.flatnonzero(eligible)
    if ids.size == 0 or len(columns) == 0:
        return ids, scores

    # one BLAS thread each: the blocks already use every core, and the bits do not depend on how many there are
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        to_user, to_item = _bases(user_factors, item_factors[columns])
        norms = _norms(item_factors[columns], to_item)
        order = np.argsort(-norms, kind="stable")
        norms, items = norms[order], columns[order].astype(np.int32)
        candidates = item_factors[items]
        position = np.full(n_items, -1, dtype=np.int32)
        position[items] = np.arange(len(items))

        @np.errstate(
            invalid="ignore", over="ignore"
        )  # what factors that are not finite give is not listed
        def fill(start: int) -> None:
            block = slice(start, start + _USERS)
            users, block_ids, block_scores = user_factors[block], ids[block], scores[block]
            user_norms = _norms(users, to_user)
            hidden = np.zeros((len(users), len(items) // 8 + 1), dtype=np.uint8)
            if seen is not None:
                _mark(hidden, position, seen.indptr[start : start + len(users) + 1], seen.indices)
            tile = np.empty((len(users), _ITEMS), dtype=np.float32)
            active = np.flatnonzero(users.any(axis=1))
            for first in range(0, len(items), _ITEMS):
                active = active[~(user_norms[active] * norms[first] < block_scores[active, -1])]
                if len(active) == 0:
                    break
                part = candidates[first : first + _ITEMS]
                np.matmul(users[active], part.T, out=tile[: len(active), : len(part)])
                tile[:, len(part) :] = np.nan  # passes no comparison
                _offer(tile, active, first, items, hidden, block_ids, block_scores)

        list(pool.map(fill, range(0, n_users, _USERS)))
    return ids, scores


def _bases(
    users: NDArray[np.float32], items: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two matrices P and Q, both (factors, factors), with P Qᵀ = 1, so that ``user · item = (user P) · (item Q)``.

    Of all such pairs this one gives both sides the same diagonal second moments. ``‖user P‖ · ‖item Q‖`` is then much closer
    to the scores than the product of the plain norms.
    """
    identity = np.eye(users.shape[1])
    moments = []
    for side in (users, items):
        moment = (side.T @ side).astype(np.float64)
        size = np.trace(moment) / len(moment)
        if not 0 < size < np.inf:
            return identity, identity
        moments.append(moment / size + 1e-4 * identity)
    root = np.linalg.cholesky(moments[1])
    values, vectors = np.linalg.eigh(root.T @ moments[0] @ root)
    return root @ vectors * values**-0.25, np.linalg.solve(root.T, vectors) * values**0.25


@np.errstate(invalid="ignore")
def _norms(factors: NDArray[np.float32], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,): the product of a user's and an item's bounds the score as float32 computes it.

    The second term under the root is the margin for rounding: by Cauchy-Schwarz it raises the product by at least
    ``factors · 2⁻²³ · ‖user‖ · ‖item‖``, twice the error of a float32 sum of so many products.
    """
    exact = factors.astype(np.float64)
    margin = len(basis) * float(np.finfo(np.float32).eps)
    norms: NDArray[np.float64] = np.sqrt(
        np.square(exact @ basis).sum(axis=1) + margin * np.square(exact).sum(axis=1)
    )
    norms[np.isnan(norms)] = np.inf
    return norms


@jit()
def _mark(hidden, position, indptr, indices):  # type: ignore[no-untyped-def]
    """Set the bits of what each user has seen."""
    for row in range(len(hidden)):
        for cell in range(indptr[row], indptr[row + 1]):
            place = position[indices[cell]]
            if place >= 0:
                hidden[row, place >> 3] |= np.uint8(1 << (place & 7))


@jit()
def _offer(tile, rows, first, items, hidden, ids, scores):  # type: ignore[no-untyped-def]
    """Put a tile's scores into the lists of its users, by insertion: made for lists of up to some hundred items."""
    last = ids.shape[1] - 1
    for line in range(len(rows)):
        row = rows[line]
        list_ids, list_scores = ids[row], scores[row]
        worst = list_scores[last]
        for chunk in range(tile.shape[1] // _CHUNK):
            start = chunk * _CHUNK
            values = tile[line, start : start + _CHUNK]
            # nearly every score fails here; the fixed length and the unsigned integer let the compiler use vectors
            passes = np.uint32(0)
            for column in range(_CHUNK):
                passes |= np.uint32(values[column] >= worst)
            if not passes:
                continue
            for column in range(_CHUNK):
                score = values[column]
                if score >= worst:
                    place = first + start + column
                    item = items[place]
                    if hidden[row, place >> 3] >> (place & 7) & 1 or (
                        score == worst and item > list_ids[last]
                    ):
                        continue
                    at = last
                    while at > 0 and (
                        score > list_scores[at - 1]
                        or (score == list_scores[at - 1] and item < list_ids[at - 1])
                    ):
                        list_ids[at], list_scores[at] = list_ids[at - 1], list_scores[at - 1]
                        at -= 1
                    list_ids[at], list_scores[at] = item, score
                    worst = list_scores[last]
