"""The rules of a user's list: at most so many items of a category."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.als.factors import Factors

# as `recsys_ops.als.top_n.top_n`
TopN = Callable[..., tuple[NDArray[np.int32], NDArray[np.float32]]]

_USERS = 2**15
_CANDIDATES = 4  # times the length of a list


@dataclass(frozen=True)
class CategoryCap:
    """category : int32, (n_items,), −1 where an item has none · room : int64, (n_categories,), so many of each may be listed"""

    category: NDArray[np.int32]
    room: NDArray[np.int64]


def category_cap(category: pl.Series, pinned: pl.Series, most: int) -> CategoryCap:
    """At most `most` of each category, in which the pinned items count as well.

    category : String series, (n_items,) · pinned : String series, the categories of the pinned items; both may have nulls
    """
    names = pl.Enum(pl.concat([category, pinned]).drop_nulls().unique().sort())
    codes, taken = (
        of.cast(names).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
        for of in (category, pinned)
    )
    room = most - np.bincount(taken[taken >= 0], minlength=len(names.categories))
    return CategoryCap(codes, np.maximum(room, 0))


def capped_top_n(
    factors: Factors,
    n: int,
    cap: CategoryCap,
    top_n: TopN,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`top_n` under the cap, exact: a list is shorter than `n` only where no other item may be in it.

    Most lists come from four times as many candidates. Those which that leaves short are made category by category. Memory
    beside the lists: the candidates of 32,768 users, some 60 bytes each, 160 MiB for lists of 20.
    """
    ids = np.full((len(factors.user), n), -1, dtype=np.int32)
    scores = np.full(ids.shape, -np.inf, dtype=np.float32)
    eligible = eligible & ((cap.category < 0) | np.append(cap.room > 0, True)[cap.category])
    for start in range(0, len(ids), _USERS):
        block = slice(start, start + _USERS)
        users, met = factors.user[block], None if seen is None else seen[block]
        candidates = top_n(users, factors.item, _CANDIDATES * n, seen=met, eligible=eligible)
        ids[block], scores[block] = _first(*candidates, n, cap)
        short = np.flatnonzero((ids[block, -1] < 0) & (candidates[0][:, -1] >= 0))
        if len(short):
            theirs = None if met is None else met[short]
            again = _by_category(
                Factors(users[short], factors.item), n, cap, top_n, seen=theirs, eligible=eligible
            )
            ids[start + short], scores[start + short] = again
    return ids, scores


def _first(
    ids: NDArray[np.int32], scores: NDArray[np.float32], n: int, cap: CategoryCap
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Of each row the first `n` that the cap lets in."""
    category = np.where(ids >= 0, cap.category[ids], -1)
    row = np.arange(len(ids))[:, None]
    key = np.where(category < 0, -1, row * len(cap.room) + category).ravel()
    order = np.argsort(key, kind="stable")
    rank = np.empty(len(key), dtype=np.int64)
    rank[order] = np.arange(len(key)) - np.searchsorted(key[order], key[order])
    kept = (ids >= 0) & (
        (category < 0) | (rank.reshape(ids.shape) < np.append(cap.room, 0)[category])
    )
    place = np.cumsum(kept, axis=1) - 1
    kept &= place < n
    first = (
        np.full((len(ids), n), -1, dtype=np.int32),
        np.full((len(ids), n), -np.inf, dtype=np.float32),
    )
    at = np.nonzero(kept)[0], place[kept]
    first[0][at], first[1][at] = ids[kept], scores[kept]
    return first


def _by_category(
    factors: Factors,
    n: int,
    cap: CategoryCap,
    top_n: TopN,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The best of every category, as many as it has room for, and of those without one; of them all the `n` best."""
    ids = np.full((len(factors.user), n), -1, dtype=np.int32)
    scores = np.full(ids.shape, -np.inf, dtype=np.float32)
    for category in np.unique(cap.category[eligible]):
        room = n if category < 0 else min(n, int(cap.room[category]))
        more = top_n(
            factors.user,
            factors.item,
            room,
            seen=seen,
            eligible=eligible & (cap.category == category),
        )
        ids, scores = np.hstack([ids, more[0]]), np.hstack([scores, more[1]])
        best = np.lexsort((ids, -scores), axis=1)[:, :n]
        ids, scores = (
            np.take_along_axis(ids, best, axis=1),
            np.take_along_axis(scores, best, axis=1),
        )
    return ids, scores
