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

# larger baskets are orders of other shops
MAX_BASKET_ITEMS = 200
_HOUR = 3600
_PAIRS = 2**20  # of a block; some 100 bytes each


@dataclass(frozen=True)
class Baskets:
    """items : csr_matrix, (n_baskets, n_items), bool, at least two a basket · weights : float64, (n_baskets,), above 0"""

    items: sparse.csr_matrix
    weights: NDArray[np.float64]

    @classmethod
    def none(cls, n_items: int) -> "Baskets":
        return cls(sparse.csr_matrix((0, n_items), dtype=bool), np.zeros(0))


def build_baskets(
    events: pl.DataFrame, items: pl.Series, day: date, settings: BoughtTogetherSettings
) -> Baskets:
    """What users did with less than `session_gap_hours` between two neighbours, whatever their ids: a basket of distinct items.

    A basket of more than `MAX_BASKET_ITEMS` teaches nothing, nor does one with fewer than two of `items`. It weighs
    ``0.5 ** (age / half_life_days)``; the age, in days, runs from the last history day of its events to `day`. The order of
    the rows does not matter. Memory grows with the events of the types in ``settings.events``, some 100 bytes each.

    events : day, user_id, item_id, event_type, second (since 1970), as `recsys_ops.history.encoded.read_encoded_events` gives them, or with text ids
    items : String series, (n_items,), sorted, unique
    """
    kinds = pl.Series(settings.events).cast(events["event_type"].dtype)
    rows = (
        events.lazy()
        .filter(pl.col("event_type").is_in(kinds.implode()))
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
    place = (
        ids.cast(pl.Enum(items), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    )
    first = (pl.col("user_id") != pl.col("user_id").shift()) | (
        pl.col("second").diff() >= settings.session_gap_hours * _HOUR
    )
    basket, age, item = (
        column.to_numpy()
        for column in rows.select(
            first.fill_null(True).cum_sum().cast(pl.Int64) - 1,
            "age",
            pl.col("item_id").cast(pl.Enum(ids)).to_physical().cast(pl.Int64),
        )
    )
    ages = np.minimum.reduceat(age, np.flatnonzero(np.diff(basket, prepend=-1)))
    basket, item = np.divmod(np.unique(basket * len(ids) + item), len(ids))
    sizes = np.bincount(basket, minlength=len(ages))
    known = (place[item] >= 0) & (sizes <= MAX_BASKET_ITEMS)[basket]
    basket, item = basket[known], place[item[known]]
    of_known = np.bincount(basket, minlength=len(ages))
    taught = of_known >= 2
    # however old, a basket is more than none
    decay = (
        np.maximum(0.5 ** (ages / settings.half_life_days), 1e-30)
        if settings.half_life_days
        else np.ones(len(ages))
    )
    kept = taught[basket]
    ends = np.append(0, np.cumsum(of_known[taught])).astype(np.int32)
    columns = item[kept].astype(np.int32)  # both orders are those of the ids
    log.info(
        "baskets=%d of %d events; %d were left out for more than %d items",
        taught.sum(), rows.height, (sizes > MAX_BASKET_ITEMS).sum(), MAX_BASKET_ITEMS,
    )  # fmt: skip
    matrix = sparse.csr_matrix(
        (np.ones(len(columns), dtype=bool), columns, ends), shape=(int(taught.sum()), len(items))
    )
    return Baskets(matrix, decay[taught])


def bought_together(
    found: Baskets, n: int, settings: BoughtTogetherSettings, *, eligible: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For every item the at most `n` eligible others that share at least `min_support` baskets with it, best first.

    With ``rank_by: weight`` the score is the weight of the baskets with both; with lift it is that weight over what it would
    be if the two were independent: ``W_ij W / (W_i W_j)``, ``W`` that of all baskets. Equal scores stand by item index. Memory
    beside baskets and lists: the pairs of a block of items, at most 100 MiB and those of one item.

    eligible : bool, (n_items,)

    Returns ids int32 and scores float32, both (n_items, n); where an item has fewer, id −1 and score −inf.
    """
    n_items = found.items.shape[1]
    ids = np.full((n_items, n), -1, dtype=np.int32)
    scores = np.full((n_items, n), -np.inf, dtype=np.float32)
    total, of_item = found.weights.sum(), found.items.T @ found.weights
    often = np.bincount(found.items.indices, minlength=n_items) >= settings.min_support
    rows, columns = np.flatnonzero(often), np.flatnonzero(often & eligible)
    if len(columns) == 0:
        return ids, scores
    left = found.items[:, rows].T.tocsr().astype(np.complex128)
    right = found.items[:, columns].tocsr().astype(np.complex128)
    # one product for both: the real part counts the baskets, the imaginary one weighs them
    right.data += 1j * np.repeat(found.weights, np.diff(right.indptr))
    most = np.minimum(left.real @ np.diff(right.indptr), len(columns))
    block = (np.cumsum(most) // _PAIRS).astype(np.int64)
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(rows)), strict=True):
        pairs = (left[start:end] @ right).tocoo()
        row, column = rows[start + pairs.row], columns[pairs.col]
        kept = (pairs.data.real >= settings.min_support) & (row != column)
        row, column, weight = row[kept], column[kept], pairs.data.imag[kept]
        score = (
            weight
            if settings.rank_by == "weight"
            else weight * total / (of_item[row] * of_item[column])
        ).astype(np.float32)
        order = np.lexsort((column, -score, row))
        row, column, score = row[order], column[order], score[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        top = place < n
        ids[row[top], place[top]], scores[row[top], place[top]] = column[top], score[top]
    return ids, scores
