"""From the history window to confidence-weighted user × item matrices and their id maps."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.errors import DataError
from recsys_ops.interactions.window import first_window_day
from recsys_ops.jit import jit
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings, EventType

_KINDS = get_args(EventType)
_SEED = 1  # of the hold-out `random`
_UNIT = (
    2.0**32
)  # weights are summed as whole multiples of 1/_UNIT: integer sums do not depend on the order of the rows


@dataclass(frozen=True)
class Interactions:
    """What people did, as matrices of one shape (n_users, n_items); row and column order is that of the sorted ids.

    users, items : String series, sorted, unique: those with a cell in `full` or in `holdout`
    train : csr_matrix, float32, confidence > 1, what is not held out: the days before the run's day
    full : csr_matrix, float32, confidence > 1, everything through the run's day
    holdout : csr_matrix, bool, what each user liked on the run's day, or what else the protocol holds out
    buyers : bool, (n_users,), who bought something in what is not held out
    """

    users: pl.Series
    items: pl.Series
    train: sparse.csr_matrix
    full: sparse.csr_matrix
    holdout: sparse.csr_matrix
    buyers: NDArray[np.bool_]


def build_interactions(
    events: pl.DataFrame, day: date, confidence: ConfidenceSettings, evaluation: EvaluationSettings
) -> Interactions:
    """Weigh the window's events and hold out `day`, or by another of the protocols.

    A pair's confidence is ``1 + alpha * log1p(w)`` (Hu, Koren & Volinsky 2008, eq. 6, with the weight in place of the count),
    where ``w`` sums ``weight * 0.5 ** (age / half_life_days) * repeat_decay ** (n - 1)`` over its events: the age runs from the
    history day to `day`, and the event is the n-th of its type, counted from the newest. With `bm25` it is
    ``1 + alpha * bm25(w)``, the items taken as documents and the users as terms. Events of a type without a weight teach
    nothing, but may be held out.

    `buyers_only`, then `min_items_per_user` and `min_users_per_item` leave users and items out of what is learned, and BM25 counts
    what is left: for `train` on the days before `day`, for `full` through it. What is held out does not depend on them.

    With the protocols `random` and `leave_last_out` everything about the pairs held out is masked in `train`, which otherwise has
    all days through `day`: a seeded share of the pairs liked in the window, or the one that each user liked last (of several on a
    day that of the smallest item id). A pair is masked only where its user and its item keep others in `train`, so that the item
    can be recommended. A model of an earlier run has learnt from the masked pairs: judged on them, or taken to start from, it
    would look better than it is, so by these protocols a model is compared with popularity alone and fitted from scratch.

    The order of the rows does not matter. Memory grows with the events of the window, some 50 bytes each beside `events`.

    events : history rows (day, user_id, item_id, event_type, …), the ids as String or as Enum of ascending ids; days outside
        the window are left out

    Raises DataError when nothing is learned from what is not held out: there is nothing to train on.
    """
    users, items = _ids(events["user_id"]), _ids(events["item_id"])
    shape = (len(users), len(items))
    start = first_window_day(day, confidence)
    kind, age = pl.col("kind"), pl.col("age")
    rows = (
        events.lazy()
        .filter(pl.col("day").is_between(start, day))
        .select(
            user=pl.col("user_id").cast(pl.Enum(users)).to_physical().cast(pl.Int64),
            item=pl.col("item_id").cast(pl.Enum(items)).to_physical(),
            kind=pl.col("event_type")
            .cast(pl.Enum(_KINDS), strict=False)
            .to_physical()
            .cast(pl.Int64),
            age=(pl.lit(day) - pl.col("day")).dt.total_days().cast(pl.Int32),
        )
    )
    weights = _weights(confidence)
    # one number holds pair, type and age, in this order: sorted, it has the events of each together, the newest first
    cell = pl.col("user") * len(items) + pl.col("item")
    key = cell * 2 ** _bits(weights) + kind * confidence.window_days + age
    weighted = (
        rows.filter(kind.is_in(_codes(confidence.weights)))
        .select(key.sort())
        .collect()
        .to_series()
        .to_numpy()
    )
    bought = rows.filter(kind.is_in(_codes(["purchase"])))
    liked = rows.filter(kind.is_in(_codes(evaluation.events)))
    if evaluation.protocol == "next_day":
        last, youngest = day - timedelta(days=1), 1
        learnable, bought_before = weighted, bought.filter(age >= youngest)
        held = liked.filter(age == 0).select(cell.unique().sort()).collect().to_series().to_numpy()
    else:
        last, youngest = day, 0
        cells = weighted >> _bits(weights)
        held = _drawn(liked, evaluation, len(items))
        held = _both_in(held, cells[~np.isin(cells, held)], shape)
        learnable, bought_before = (
            weighted[~np.isin(cells, held)],
            bought.filter(~cell.is_in(pl.Series(held).implode())),
        )

    def who(of: pl.LazyFrame) -> NDArray[np.bool_]:
        found = np.zeros(len(users), dtype=bool)
        found[of.select("user").collect().to_series().to_numpy()] = True
        return found

    def learned(sums: sparse.csr_matrix, buyers: NDArray[np.bool_]) -> sparse.csr_matrix:
        return _confidence(_supported(sums, buyers, confidence), confidence)

    buyers = who(bought_before)

    met = _sums(learnable, weights, shape, confidence.repeat_decay, youngest)
    if met.nnz == 0:
        raise DataError(
            f"nothing to train on: history holds no {', '.join(confidence.weights)} events of "
            f"{start} … {last} ({events.height:,} rows read); run recsys_ingest for those days first"
        )
    train = learned(met, buyers)
    if train.nnz == 0:
        raise DataError(
            f"nothing to train on: {met.nnz:,} pairs of user and item of {start} … {last}, none of which "
            "passes confidence.buyers_only, min_items_per_user and min_users_per_item: lower them"
        )
    if evaluation.protocol != "next_day":
        held = _both_in(held, _cells(train), shape)
    holdout = _matrix(held, np.ones(len(held), dtype=bool), shape)
    if evaluation.exclude_seen:
        holdout = (holdout > met.astype(bool)).tocsr()
    full = learned(
        _sums(weighted, weights, shape, confidence.repeat_decay),
        who(bought) if confidence.buyers_only else buyers,
    )
    return _without_empty(Interactions(users, items, train, full, holdout, buyers))


def _ids(column: pl.Series) -> pl.Series:
    return column.dtype.categories if isinstance(column.dtype, pl.Enum) else column.unique().sort()


def _codes(kinds: Iterable[EventType]) -> list[int]:
    return [_KINDS.index(kind) for kind in kinds]


def _drawn(liked: pl.LazyFrame, evaluation: EvaluationSettings, n_items: int) -> NDArray[np.int64]:
    """The cells to mask, ascending.

    liked : user, item, age
    """
    cell = (pl.col("user") * n_items + pl.col("item")).alias("cell")
    if evaluation.protocol == "random":
        cells = liked.select(cell.unique().sort()).collect().to_series().to_numpy()
        return cells[np.random.default_rng(_SEED).random(len(cells)) < evaluation.random_share]
    # of the smallest age, then of the smallest item
    newest = liked.group_by("user").agg(
        item=(pl.col("age").cast(pl.Int64) * n_items + pl.col("item")).min() % n_items
    )
    return newest.select(cell.sort()).collect().to_series().to_numpy()


def _both_in(
    cells: NDArray[np.int64], others: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.int64]:
    """Those of `cells` whose row and column both have some of the `others`."""
    rows, columns = (np.zeros(n, dtype=bool) for n in shape)
    row, column = np.divmod(others, max(shape[1], 1))
    rows[row] = columns[column] = True
    row, column = np.divmod(cells, max(shape[1], 1))
    return cells[rows[row] & columns[column]]


def _cells(matrix: sparse.csr_matrix) -> NDArray[np.int64]:
    """The numbers of the stored cells, row by row."""
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    numbers: NDArray[np.int64] = rows * matrix.shape[1] + matrix.indices
    return numbers


def _weights(confidence: ConfidenceSettings) -> NDArray[np.float64]:
    """(n_kinds, window_days): what the newest event of a kind and an age weighs."""
    of_kind = np.array([confidence.weights.get(kind, 0.0) for kind in _KINDS])
    age = np.arange(confidence.window_days)
    decay = (
        0.5 ** (age / confidence.half_life_days) if confidence.half_life_days else np.ones(len(age))
    )
    return of_kind[:, None] * decay


def _sums(
    keys: NDArray[np.int64],
    weights: NDArray[np.float64],
    shape: tuple[int, int],
    repeat_decay: float,
    youngest: int = 0,
) -> sparse.csr_matrix:
    """int64, multiples of 1/_UNIT: the weights of each pair's events of at least that age, summed. Keys are sorted."""
    data, columns, ends = _add_up(keys, _bits(weights), weights, shape, repeat_decay, youngest)
    return sparse.csr_matrix((data, columns, np.maximum.accumulate(ends)), shape=shape)


@jit()
def _add_up(keys, bits, weights, shape, repeat_decay, youngest):  # type: ignore[no-untyped-def]
    """The cells' sums and columns, (n_cells,), and where the cells of each user that has some end, (n_users + 1,)."""
    sums, columns = np.zeros(len(keys), np.int64), np.empty(len(keys), np.int32)
    ends = np.zeros(shape[0] + 1, np.int32)
    n_cells, last_cell, last_kind, repeats = 0, -1, -1, 0
    for key in keys:
        cell = key >> bits
        kind, age = divmod(key - (cell << bits), weights.shape[1])
        if age < youngest:
            continue
        if cell != last_cell:
            user, columns[n_cells] = divmod(cell, shape[1])
            n_cells += 1
            ends[user + 1] = n_cells
        repeats = repeats + 1 if cell == last_cell and kind == last_kind else 0
        last_cell, last_kind = cell, kind
        whole = np.rint(weights[kind, age] * repeat_decay**repeats * _UNIT)
        sums[n_cells - 1] += max(
            np.int64(whole), 1
        )  # however old and often repeated, an event is more than none
    return sums[:n_cells], columns[:n_cells], ends


def _bits(weights: NDArray[np.float64]) -> int:
    """So many of a key's lowest bits hold type and age."""
    return weights.size.bit_length()


def _matrix(
    cells: NDArray[np.int64], data: NDArray[Any], shape: tuple[int, int]
) -> sparse.csr_matrix:
    """The matrix with `data` in its `cells`, numbered row by row, ascending."""
    rows, columns = np.divmod(cells, max(shape[1], 1))
    ends = np.cumsum(np.bincount(rows, minlength=shape[0]))
    return sparse.csr_matrix(
        (data, columns.astype(np.int32), np.append(0, ends).astype(np.int32)), shape=shape
    )


def _supported(
    sums: sparse.csr_matrix, buyers: NDArray[np.bool_], confidence: ConfidenceSettings
) -> sparse.csr_matrix:
    """Without the cells of users and items that have too few; both are counted before either is left out."""
    if confidence.buyers_only:
        sums = _where(sums, buyers, np.ones(sums.shape[1], dtype=bool))
    if confidence.min_items_per_user == confidence.min_users_per_item == 1:
        return sums
    per_user, per_item = np.diff(sums.indptr), np.bincount(sums.indices, minlength=sums.shape[1])
    return _where(
        sums, per_user >= confidence.min_items_per_user, per_item >= confidence.min_users_per_item
    )


def _where(
    matrix: sparse.csr_matrix, users: NDArray[np.bool_], items: NDArray[np.bool_]
) -> sparse.csr_matrix:
    if users.all() and items.all():
        return matrix
    kept = np.repeat(users, np.diff(matrix.indptr)) & items[matrix.indices]
    ends = np.append(0, np.cumsum(kept))[matrix.indptr].astype(matrix.indptr.dtype)
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)


def _confidence(sums: sparse.csr_matrix, confidence: ConfidenceSettings) -> sparse.csr_matrix:
    """float32, above 1: a stored 1 would be the same as no event, and less would count against the item."""
    weight, bm25 = sums.data / _UNIT, confidence.bm25
    extra = np.log1p(weight, out=weight) if bm25 is None else _bm25(sums, weight, bm25.k1, bm25.b)
    data = (1 + confidence.alpha * extra).astype(np.float32)
    np.maximum(data, np.nextafter(np.float32(1), np.float32(2)), out=data)
    return sparse.csr_matrix((data, sums.indices, sums.indptr), shape=sums.shape)


def _bm25(
    sums: sparse.csr_matrix, weight: NDArray[np.float64], k1: float, b: float
) -> NDArray[np.float64]:
    """`weight` as implicit weighs it; ids without a cell, which may be the held-out day's alone, do not count."""
    from implicit.nearest_neighbours import bm25_weight

    items, of_cell = np.unique(sums.indices, return_inverse=True)
    users = np.repeat(np.arange(sums.shape[0]), np.diff(sums.indptr))
    by_item = sparse.coo_matrix((weight, (of_cell, users)), shape=(len(items), sums.shape[0]))
    data: NDArray[np.float64] = bm25_weight(by_item, K1=k1, B=b).data
    return data


def _without_empty(found: Interactions) -> Interactions:
    """The same without the ids that have a cell neither in `full`, which has all of `train`, nor in `holdout`."""
    users = (np.diff(found.full.indptr) + np.diff(found.holdout.indptr)) > 0
    items = np.zeros(found.full.shape[1], dtype=bool)
    items[found.full.indices] = items[found.holdout.indices] = True
    place = (np.cumsum(items) - 1).astype(np.int32)

    def closed(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        ends = np.append(0, matrix.indptr[1:][users]).astype(matrix.indptr.dtype)
        return sparse.csr_matrix(
            (matrix.data, place[matrix.indices], ends), shape=(int(users.sum()), int(items.sum()))
        )

    train, full, holdout = (closed(matrix) for matrix in (found.train, found.full, found.holdout))
    kept = found.users.filter(pl.Series(users)), found.items.filter(pl.Series(items))
    return Interactions(*kept, train, full, holdout, found.buyers[users])
