"""From the history window to confidence-weighted user × item matrices and their id maps."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from scipy import sparse

from recsys_ops.errors import DataError
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings

_UNIT = 2.0**32  # weights are summed as whole multiples of 1/_UNIT: integer sums do not depend on the order of the rows


@dataclass(frozen=True)
class Interactions:
    """What people did, as matrices of one shape (n_users, n_items); row and column order is that of the sorted ids.

    users, items : String series, sorted, unique
    train : csr_matrix, float32, confidence > 1, the days before the held-out day
    full : csr_matrix, float32, confidence > 1, the same through the held-out day
    holdout : csr_matrix, bool, what each user liked on the held-out day
    """

    users: pl.Series
    items: pl.Series
    train: sparse.csr_matrix
    full: sparse.csr_matrix
    holdout: sparse.csr_matrix


def window_start(day: date, confidence: ConfidenceSettings) -> date:
    """The first of the ``window_days`` days that end with `day`."""
    return day - timedelta(days=confidence.window_days - 1)


def build(events: pl.DataFrame, day: date, confidence: ConfidenceSettings, evaluation: EvaluationSettings) -> Interactions:
    """Weigh the window's events and hold out `day`.

    A pair's confidence is ``1 + alpha * log1p(sum of weight * 0.5 ** (age_days / half_life_days))`` (Hu, Koren & Volinsky
    2008, eq. 6, with the weight in place of the count); the age runs from the history day to `day`. Events of a type without
    a weight teach nothing, but may be held out. The order of the rows does not matter.

    events : history rows (day, user_id, item_id, event_type, …); days outside the window are left out

    Raises DataError when no weighted event lies before `day`: there is nothing to train on.
    """
    start = window_start(day, confidence)
    is_weighted = pl.col("event_type").is_in(list(confidence.weights))
    is_liked = (pl.col("day") == day) & pl.col("event_type").is_in(list(evaluation.events))
    rows = events.filter(pl.col("day").is_between(start, day) & (is_weighted | is_liked))

    users, items = rows["user_id"].unique().sort(), rows["item_id"].unique().sort()
    age = (pl.lit(day) - pl.col("day")).dt.total_days()
    weight = pl.col("event_type").replace_strict(confidence.weights, default=0.0, return_dtype=pl.Float64)
    coded = rows.select(
        user=pl.col("user_id").cast(pl.Enum(users)).to_physical(),
        item=pl.col("item_id").cast(pl.Enum(items)).to_physical(),
        weight=(weight * 0.5 ** (age / confidence.half_life_days) * _UNIT).round().cast(pl.Int64),
        weighted=is_weighted,
        liked=is_liked,
        before=pl.col("day") < day,
    )
    shape = (len(users), len(items))
    train = _confidence(coded.filter("weighted", "before"), shape, confidence.alpha)
    if train.nnz == 0:
        raise DataError(
            f"nothing to train on: history holds no {', '.join(confidence.weights)} events of "
            f"{start} … {day - timedelta(days=1)} ({events.height:,} rows read); run recsys_ingest for those days first"
        )
    holdout = _summed(coded.filter("liked").with_columns(weight=1), shape).astype(bool)
    if evaluation.exclude_seen:
        holdout = (holdout > train.astype(bool)).tocsr()
    return Interactions(users, items, train, _confidence(coded.filter("weighted"), shape, confidence.alpha), holdout)


def _confidence(coded: pl.DataFrame, shape: tuple[int, int], alpha: float) -> sparse.csr_matrix:
    matrix = _summed(coded, shape)
    data = (1 + alpha * np.log1p(matrix.data / _UNIT)).astype(np.float32)
    # very old events weigh less than float32 can add to 1, and a stored 1 would be the same as no event
    matrix.data = np.maximum(data, np.nextafter(np.float32(1), np.float32(2)))
    return matrix


def _summed(coded: pl.DataFrame, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Repeats summed, column indices sorted."""
    triple = (coded["weight"].to_numpy(), (coded["user"].to_numpy(), coded["item"].to_numpy()))
    matrix = sparse.coo_matrix(triple, shape=shape).tocsr()
    matrix.sort_indices()
    return matrix
