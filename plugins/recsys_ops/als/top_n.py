"""The exact top-n items for every user, without scoring most of the items."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.jit import jit

# A thread holds the scores of one tile, 2 MiB, and one bit for each of its users and each item, 64
# bytes an item.
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

    Items are scored in the order of their bounds (see `_norms`), a tile at a time, until no later
    item can enter a user's list.

    user_factors : float32, (n_users, factors); a user whose factors are all zero was never trained
        and gets no list
    item_factors : float32, (n_items, factors)
    seen : csr_matrix, (n_users, n_items); stored items are left out of the user's list
    eligible : bool, (n_items,); the items that may be listed, all when None

    Returns ids int32 and scores float32, both (n_users, n). Where a user has fewer candidates, id
    is −1 and score −inf. A score that is not a number is never listed.
    """
    n_users, n_items = len(user_factors), len(item_factors)
    ids = np.full((n_users, n), -1, dtype=np.int32)
    scores = np.full((n_users, n), -np.inf, dtype=np.float32)
    columns = np.arange(n_items) if eligible is None else np.flatnonzero(eligible)
    if ids.size == 0 or len(columns) == 0:
        return ids, scores

    # one BLAS thread each: the blocks use every core, and so the result does not depend on the
    # number of cores
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        to_user, to_item = _bases(user_factors, item_factors[columns])
        norms = _norms(item_factors[columns], to_item)
        order = np.argsort(-norms, kind="stable")
        norms, items = norms[order], columns[order].astype(np.int32)
        candidates = item_factors[items]
        position = np.full(n_items, -1, dtype=np.int32)
        position[items] = np.arange(len(items))

        # factors that are not finite give scores that are not listed
        @np.errstate(invalid="ignore", over="ignore")
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
                tile_items = candidates[first : first + _ITEMS]
                np.matmul(users[active], tile_items.T, out=tile[: len(active), : len(tile_items)])
                tile[:, len(tile_items) :] = np.nan  # passes no comparison
                _insert(tile, active, first, items, hidden, block_ids, block_scores)

        list(pool.map(fill, range(0, n_users, _USERS)))
    return ids, scores


def _bases(
    users: NDArray[np.float32], items: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two matrices P and Q, (factors, factors), with ``user · item = (user P) · (item Q)``.

    That is P Qᵀ = 1. Of all such pairs this one gives both sides the same diagonal second moments.
    ``‖user P‖ · ‖item Q‖`` is then much closer to the scores than the product of the plain norms.
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
    """(n,): the product of a user's and an item's norm is a bound of their float32 score.

    The second term under the root is the margin for rounding. By Cauchy-Schwarz it raises the
    product by at least ``factors · 2⁻²³ · ‖user‖ · ‖item‖``, twice the error of a float32 sum of so
    many products.
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
    """Set the bits of the items that each user has seen.

    hidden : uint8, (n_users, bytes), one bit a position · position : of each item, −1 without one
    """
    for row in range(len(hidden)):
        for cell in range(indptr[row], indptr[row + 1]):
            bit = position[indices[cell]]
            if bit >= 0:
                hidden[row, bit >> 3] |= np.uint8(1 << (bit & 7))


@jit()
def _insert(tile, tile_users, first, items, hidden, ids, scores):  # type: ignore[no-untyped-def]
    """Insert a tile's scores into the lists of its users; fast for lists of up to some hundred.

    tile : float32, (≥ n_tile_users, _ITEMS), the scores of the items from position `first` on
    tile_users : (n_tile_users,), the row of each in `hidden`, `ids` and `scores`
    items : int32, the item index at each position · hidden : see `_mark`
    ids, scores : (n_users, n), the lists so far
    """
    last = ids.shape[1] - 1
    for tile_row in range(len(tile_users)):
        user = tile_users[tile_row]
        list_ids, list_scores = ids[user], scores[user]
        worst = list_scores[last]
        for chunk in range(tile.shape[1] // _CHUNK):
            start = chunk * _CHUNK
            values = tile[tile_row, start : start + _CHUNK]
            # Nearly every score fails here. The fixed length and the unsigned integer let the
            # compiler use vectors.
            passes = np.uint32(0)
            for column in range(_CHUNK):
                passes |= np.uint32(values[column] >= worst)
            if not passes:
                continue
            for column in range(_CHUNK):
                score = values[column]
                if score >= worst:
                    position = first + start + column
                    item = items[position]
                    if hidden[user, position >> 3] >> (position & 7) & 1 or (
                        score == worst and item > list_ids[last]
                    ):
                        continue
                    slot = last
                    while slot > 0 and (
                        score > list_scores[slot - 1]
                        or (score == list_scores[slot - 1] and item < list_ids[slot - 1])
                    ):
                        list_ids[slot], list_scores[slot] = (
                            list_ids[slot - 1],
                            list_scores[slot - 1],
                        )
                        slot -= 1
                    list_ids[slot], list_scores[slot] = item, score
                    worst = list_scores[last]
