"""The category cap: a limit on the items of one category in a list."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.als.factors import Factors

# `recsys_ops.als.top_n.top_n`, or a function that takes the same arguments
TopN = Callable[..., tuple[NDArray[np.int32], NDArray[np.float32]]]

_USERS_AT_ONCE = 2**15
_CANDIDATES = 4  # times the length of a list


@dataclass(frozen=True)
class CategoryCap:
    """How many items of each category a list may have beside the pinned ones.

    category : int32, (n_items,), −1 where an item has none
    remaining : int64, (n_categories,)
    """

    category: NDArray[np.int32]
    remaining: NDArray[np.int64]


def category_cap(category: pl.Series, pinned: pl.Series, max_per_category: int) -> CategoryCap:
    """The cap of `max_per_category`, less the pinned items of each category.

    category : String series, (n_items,), null where an item has none
    pinned : String series, the categories of the pinned items, with nulls
    """
    names = pl.Enum(pl.concat([category, pinned]).drop_nulls().unique().sort())
    codes, pinned_codes = (
        series.cast(names).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
        for series in (category, pinned)
    )
    n_pinned = np.bincount(pinned_codes[pinned_codes >= 0], minlength=len(names.categories))
    return CategoryCap(codes, np.maximum(max_per_category - n_pinned, 0))


def capped_top_n(
    factors: Factors,
    n: int,
    cap: CategoryCap,
    top_n: TopN,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`top_n` under the cap, exact: a list is shorter than `n` only where no other item fits.

    Most lists come from four times as many candidates. Those that are too short then are made
    category by category. Memory beside the lists: the candidates of 32,768 users, some 60 bytes
    each, 160 MiB for lists of 20.
    """
    ids = np.full((len(factors.user), n), -1, dtype=np.int32)
    scores = np.full(ids.shape, -np.inf, dtype=np.float32)
    accepts_items = np.append(cap.remaining > 0, True)
    eligible = eligible & ((cap.category < 0) | accepts_items[cap.category])
    for start in range(0, len(ids), _USERS_AT_ONCE):
        block = slice(start, start + _USERS_AT_ONCE)
        users, seen_of_block = factors.user[block], None if seen is None else seen[block]
        candidates = top_n(
            users, factors.item, _CANDIDATES * n, seen=seen_of_block, eligible=eligible
        )
        ids[block], scores[block] = _first_allowed(*candidates, n, cap)
        too_short = np.flatnonzero((ids[block, -1] < 0) & (candidates[0][:, -1] >= 0))
        if len(too_short):
            ids[start + too_short], scores[start + too_short] = _by_category(
                Factors(users[too_short], factors.item),
                n,
                cap,
                top_n,
                seen=None if seen_of_block is None else seen_of_block[too_short],
                eligible=eligible,
            )
    return ids, scores


def _first_allowed(
    ids: NDArray[np.int32], scores: NDArray[np.float32], n: int, cap: CategoryCap
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The first `n` of each row that the cap allows."""
    category = np.where(ids >= 0, cap.category[ids], -1)
    row = np.arange(len(ids))[:, None]
    group = np.where(category < 0, -1, row * len(cap.remaining) + category).ravel()
    order = np.argsort(group, kind="stable")
    rank_in_group = np.empty(len(group), dtype=np.int64)
    rank_in_group[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    remaining = np.append(cap.remaining, 0)[category]
    allowed = (ids >= 0) & ((category < 0) | (rank_in_group.reshape(ids.shape) < remaining))
    position = np.cumsum(allowed, axis=1) - 1
    allowed &= position < n
    first_ids = np.full((len(ids), n), -1, dtype=np.int32)
    first_scores = np.full((len(ids), n), -np.inf, dtype=np.float32)
    target = np.nonzero(allowed)[0], position[allowed]
    first_ids[target], first_scores[target] = ids[allowed], scores[allowed]
    return first_ids, first_scores


def _by_category(
    factors: Factors,
    n: int,
    cap: CategoryCap,
    top_n: TopN,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The best `n` of the best of each category, as many as remain, and those without one."""
    ids = np.full((len(factors.user), n), -1, dtype=np.int32)
    scores = np.full(ids.shape, -np.inf, dtype=np.float32)
    for category in np.unique(cap.category[eligible]):
        of_category_ids, of_category_scores = top_n(
            factors.user,
            factors.item,
            n if category < 0 else min(n, int(cap.remaining[category])),
            seen=seen,
            eligible=eligible & (cap.category == category),
        )
        ids, scores = np.hstack([ids, of_category_ids]), np.hstack([scores, of_category_scores])
        best = np.lexsort((ids, -scores), axis=1)[:, :n]
        ids = np.take_along_axis(ids, best, axis=1)
        scores = np.take_along_axis(scores, best, axis=1)
    return ids, scores
