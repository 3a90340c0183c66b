"""Bought together: baskets out of events, and the items that share them."""

import logging
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.settings import BoughtTogetherSettings

log = logging.getLogger(__name__)

# a larger basket is a reseller's order and says little about which items belong together
MAX_BASKET_ITEMS = 200
_HOUR = 3600
_PAIRS_AT_ONCE = 2**20  # some 100 bytes each


@dataclass(frozen=True)
class Baskets:
    """The baskets of a window.

    items : csr_matrix, bool, (n_baskets, n_items), at least two items a basket
    weights : float64, (n_baskets,), above 0
    """

    items: sparse.csr_matrix
    weights: NDArray[np.float64]

    @classmethod
    def none(cls, n_items: int) -> "Baskets":
        return cls(sparse.csr_matrix((0, n_items), dtype=bool), np.zeros(0))


def build_baskets(
    events: pl.DataFrame, items: pl.Series, day: date, settings: BoughtTogetherSettings
) -> Baskets:
    """Cut each user's events into baskets of different items.

    A basket ends where the user's next event is `session_gap_hours` or more away; the ids of
    sessions are not used. Baskets of more than `MAX_BASKET_ITEMS` items, and those with fewer than
    two of `items`, are left out. A basket weighs ``0.5 ** (age / half_life_days)``; its age is the
    number of days from the history day of its last event to `day`.

    The order of the rows does not matter. Memory grows with the events of the types in
    ``settings.events``, some 100 bytes each.

    events : day, user_id, item_id, event_type, second (since 1970), with ids as String or as Enum
        (see `recsys_ops.history.encoded.read_encoded_events`)
    items : String series, (n_items,), sorted, unique
    """
    event_types = pl.Series(settings.events).cast(events["event_type"].dtype)
    rows = (
        events.lazy()
        .filter(pl.col("event_type").is_in(event_types.implode()))
        .select(
            "user_id",
            "item_id",
            second=pl.col("second").cast(pl.Int64),
            age=(pl.lit(day) - pl.col("day")).dt.total_days(),
        )
        .sort("user_id", "second")
        .collect()
    )
    if rows.is_empty():
        return Baskets.none(len(items))
    ids = (
        rows["item_id"].dtype.categories
        if isinstance(rows["item_id"].dtype, pl.Enum)
        else rows["item_id"].unique().sort()
    )
    column_of_id = (
        ids.cast(pl.Enum(items), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    )
    starts_basket = (pl.col("user_id") != pl.col("user_id").shift()) | (
        pl.col("second").diff() >= settings.session_gap_hours * _HOUR
    )
    basket, age, item = (
        column.to_numpy()
        for column in rows.select(
            starts_basket.fill_null(True).cum_sum().cast(pl.Int64) - 1,
            "age",
            pl.col("item_id").cast(pl.Enum(ids)).to_physical().cast(pl.Int64),
        )
    )
    ages = np.minimum.reduceat(age, np.flatnonzero(np.diff(basket, prepend=-1)))
    basket, item = np.divmod(np.unique(basket * len(ids) + item), len(ids))
    sizes = np.bincount(basket, minlength=len(ages))
    used = (column_of_id[item] >= 0) & (sizes <= MAX_BASKET_ITEMS)[basket]
    basket, columns = basket[used], column_of_id[item[used]]
    n_columns = np.bincount(basket, minlength=len(ages))
    kept = n_columns >= 2
    # even the oldest basket weighs more than none
    weights = (
        np.maximum(0.5 ** (ages / settings.half_life_days), 1e-30)
        if settings.half_life_days
        else np.ones(len(ages))
    )
    ends = np.append(0, np.cumsum(n_columns[kept])).astype(np.int32)
    columns = columns[kept[basket]].astype(np.int32)  # ids and items have the same order
    log.info(
        "baskets=%d of %d events; %d were left out for more than %d items",
        kept.sum(),
        rows.height,
        (sizes > MAX_BASKET_ITEMS).sum(),
        MAX_BASKET_ITEMS,
    )
    matrix = sparse.csr_matrix(
        (np.ones(len(columns), dtype=bool), columns, ends), shape=(int(kept.sum()), len(items))
    )
    return Baskets(matrix, weights[kept])


def bought_together(
    baskets: Baskets, n: int, settings: BoughtTogetherSettings, *, eligible: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For every item the eligible others that share baskets with it, best first.

    At most `n`, each in at least `min_support` of its baskets. With ``rank_by: weight`` the score
    is the summed weight W_ij of the shared baskets. With lift it is that weight over the one to
    expect of two independent items: ``W_ij W / (W_i W_j)``, where W is the weight of all baskets.
    Equal scores are ordered by item index.

    Memory beside baskets and lists: the pairs of a block of items, at most 100 MiB and those of one
    item.

    eligible : bool, (n_items,)

    Returns ids int32 and scores float32, both (n_items, n); where an item has fewer, id −1 and
    score −inf.
    """
    n_items = baskets.items.shape[1]
    ids = np.full((n_items, n), -1, dtype=np.int32)
    scores = np.full((n_items, n), -np.inf, dtype=np.float32)
    total, item_weights = baskets.weights.sum(), baskets.items.T @ baskets.weights
    supported = np.bincount(baskets.items.indices, minlength=n_items) >= settings.min_support
    rows, columns = np.flatnonzero(supported), np.flatnonzero(supported & eligible)
    if len(columns) == 0:
        return ids, scores
    of_rows = baskets.items[:, rows].T.tocsr().astype(np.float64)
    of_columns = baskets.items[:, columns].tocsr().astype(np.float64)
    basket_sizes = np.diff(of_columns.indptr)
    weighted_columns = sparse.csr_matrix(
        (np.repeat(baskets.weights, basket_sizes), of_columns.indices, of_columns.indptr),
        shape=of_columns.shape,
    )
    max_pairs = np.minimum(of_rows @ basket_sizes, len(columns))
    block = (np.cumsum(max_pairs) // _PAIRS_AT_ONCE).astype(np.int64)
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(rows)), strict=True):
        # both products have the same pairs in the same order
        support = (of_rows[start:end] @ of_columns).tocoo()
        weight = (of_rows[start:end] @ weighted_columns).data
        row, column = rows[start + support.row], columns[support.col]
        kept = (support.data >= settings.min_support) & (row != column)
        row, column, weight = row[kept], column[kept], weight[kept]
        if settings.rank_by == "lift":
            weight = weight * total / (item_weights[row] * item_weights[column])
        score = weight.astype(np.float32)
        order = np.lexsort((column, -score, row))
        row, column, score = row[order], column[order], score[order]
        position = np.arange(len(row)) - np.searchsorted(row, row)
        top = position < n
        ids[row[top], position[top]], scores[row[top], position[top]] = column[top], score[top]
    return ids, scores
