"""From the history window to confidence-weighted user × item matrices and their id maps."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.errors import DataError
from recsys_ops.interactions.confidence import PairCounts, confidence_of
from recsys_ops.interactions.encoded_window import EncodedWindow, encode_window, first_window_day
from recsys_ops.interactions.holdout import holdout_matrix, split
from recsys_ops.jit import jit
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings

# Weights are summed as integer multiples of 1/_UNIT: the sum does not depend on the rows' order.
_UNIT = 2.0**32


@dataclass(frozen=True)
class Interactions:
    """What users did, as matrices of one shape (n_users, n_items), rows and columns by sorted id.

    users, items : String series, sorted, unique: those with a cell in `full` or in `holdout`
    train : csr_matrix, float32, confidence > 1, what is not held out: the days before the run's day
    full : csr_matrix, float32, confidence > 1, everything through the run's day
    holdout : csr_matrix, bool, the pairs that are held out
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
    """Weigh the events of the window that ends with `day`, and hold out what the protocol says.

    A pair's confidence is ``1 + alpha * log1p(w)``, or with `bm25` ``1 + alpha * bm25(w)``, see
    `confidence_of`. ``w`` is the sum over its events of
    ``weight * 0.5 ** (age / half_life_days) * repeat_decay ** (n - 1)``: the age runs from the
    history day to `day`, and the event is the n-th of its type, counted from the newest. Events of
    a type without a weight are not learned from, but may be held out.

    `buyers_only`, then `min_items_per_user` and `min_users_per_item` leave users and items out of
    what is learned, and BM25 counts what is left: for `train` without what is held out, for `full`
    with it. What is held out does not depend on them, but for the masked pairs (see `split`).

    With the protocols `random` and `leave_last_out` the events of masked pairs are left out of
    `train`, which otherwise has all days through `day`. A model of an earlier run has learned from
    the masked pairs. Evaluated on them it would look better than it is, and so would a fit that
    starts from it. Therefore a model is compared with popularity alone by these protocols, and
    fitted from scratch.

    The order of the rows does not matter. Memory grows with the events of the window, some 50
    bytes each beside `events`.

    events : history rows (day, user_id, item_id, event_type, …), the ids as String or as Enum of
        ascending ids; days outside the window are ignored

    Raises DataError when there is nothing to learn from.
    """
    window = encode_window(events, day, confidence)
    divided = split(window, evaluation)
    buyers = _users_of(divided.train_purchases, window)

    seen = _weight_sums(divided.train_keys, window, confidence, divided.min_age)
    first, last = first_window_day(day, confidence), day - timedelta(days=divided.min_age)
    if seen.nnz == 0:
        raise DataError(
            f"nothing to train on: the history has no {', '.join(confidence.weights)} events of "
            f"{first} … {last} ({events.height:,} rows read); "
            "run recsys_ingest for those days first"
        )
    train = confidence_matrix(seen, buyers, confidence)
    if train.nnz == 0:
        raise DataError(
            f"nothing to train on: none of the {seen.nnz:,} pairs of user and item of {first} … "
            f"{last} passes confidence.buyers_only, min_items_per_user and min_users_per_item: "
            "lower them"
        )
    holdout = holdout_matrix(divided, train, seen, evaluation)

    sums = _weight_sums(window.keys, window, confidence)
    all_buyers = buyers
    if confidence.buyers_only:
        all_buyers = _users_of(window.of_types(["purchase"]), window)
    full = confidence_matrix(sums, all_buyers, confidence)
    return _without_empty(Interactions(window.users, window.items, train, full, holdout, buyers))


def confidence_matrix(
    sums: sparse.csr_matrix, buyers: NDArray[np.bool_], settings: ConfidenceSettings
) -> sparse.csr_matrix:
    """csr_matrix, float32, the confidences of the pairs that pass the settings' minima.

    sums : csr_matrix, int64, (n_users, n_items), the pairs' weights as multiples of 1/_UNIT
    buyers : bool, (n_users,)
    """
    sums = _supported(sums, buyers, settings)
    weight = sums.data / _UNIT
    data = confidence_of(weight, settings, lambda: _pair_counts(sums, weight))
    return sparse.csr_matrix((data, sums.indices, sums.indptr), shape=sums.shape)


def _users_of(events: pl.LazyFrame, window: EncodedWindow) -> NDArray[np.bool_]:
    """(n_users,): who has one of the events."""
    mask = np.zeros(len(window.users), dtype=bool)
    mask[events.select("user").collect().to_series().to_numpy()] = True
    return mask


def _weight_sums(
    keys: NDArray[np.int64], window: EncodedWindow, confidence: ConfidenceSettings, min_age: int = 0
) -> sparse.csr_matrix:
    """csr_matrix, int64, multiples of 1/_UNIT: the summed weights of each pair's events.

    keys : int64, sorted · min_age : younger events are skipped
    """
    data, items, ends = _add_up(
        keys, window.key_bits, window.weights, window.shape, confidence.repeat_decay, min_age
    )
    return sparse.csr_matrix((data, items, np.maximum.accumulate(ends)), shape=window.shape)


@jit()
def _add_up(keys, key_bits, weights, shape, repeat_decay, min_age):  # type: ignore[no-untyped-def]
    """The sums and items of the pairs, (n_pairs,), and where each user's pairs end, (n_users + 1,).

    The end of a user without a pair is 0.
    """
    sums, items = np.zeros(len(keys), np.int64), np.empty(len(keys), np.int32)
    ends = np.zeros(shape[0] + 1, np.int32)
    n_pairs, last_pair, last_type, repeats = 0, -1, -1, 0
    for key in keys:
        pair = key >> key_bits
        event_type, age = divmod(key - (pair << key_bits), weights.shape[1])
        if age < min_age:
            continue
        if pair != last_pair:
            user, items[n_pairs] = divmod(pair, shape[1])
            n_pairs += 1
            ends[user + 1] = n_pairs
        repeats = repeats + 1 if pair == last_pair and event_type == last_type else 0
        last_pair, last_type = pair, event_type
        units = np.rint(weights[event_type, age] * repeat_decay**repeats * _UNIT)
        # even the oldest and most repeated event counts more than none
        sums[n_pairs - 1] += max(np.int64(units), 1)
    return sums[:n_pairs], items[:n_pairs], ends


def _supported(
    sums: sparse.csr_matrix, buyers: NDArray[np.bool_], settings: ConfidenceSettings
) -> sparse.csr_matrix:
    """Without the cells of users and items that have too few; both are counted before filtering."""
    if settings.buyers_only:
        sums = _only(sums, buyers, np.ones(sums.shape[1], dtype=bool))
    if settings.min_items_per_user == settings.min_users_per_item == 1:
        return sums
    per_user, per_item = np.diff(sums.indptr), np.bincount(sums.indices, minlength=sums.shape[1])
    return _only(
        sums, per_user >= settings.min_items_per_user, per_item >= settings.min_users_per_item
    )


def _only(
    matrix: sparse.csr_matrix, users: NDArray[np.bool_], items: NDArray[np.bool_]
) -> sparse.csr_matrix:
    """The same shape with the cells of these users and items alone."""
    if users.all() and items.all():
        return matrix
    kept = np.repeat(users, np.diff(matrix.indptr)) & items[matrix.indices]
    ends = np.append(0, np.cumsum(kept))[matrix.indptr].astype(matrix.indptr.dtype)
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)


def _pair_counts(sums: sparse.csr_matrix, weight: NDArray[np.float64]) -> PairCounts:
    """Of each stored cell. Items without a cell, which only the held-out day has, do not count."""
    items, item_of_cell = np.unique(sums.indices, return_inverse=True)
    lengths: NDArray[np.float64] = np.bincount(item_of_cell, weights=weight)  # type: ignore[assignment]
    items_of_user = np.diff(sums.indptr)
    return PairCounts(
        np.repeat(items_of_user, items_of_user),
        lengths[item_of_cell],
        float(lengths.mean()),
        len(items),
    )


def _without_empty(interactions: Interactions) -> Interactions:
    """The same without the ids that have a cell neither in `full` nor in `holdout`.

    `full` has all cells of `train`.
    """
    full, holdout = interactions.full, interactions.holdout
    users = (np.diff(full.indptr) + np.diff(holdout.indptr)) > 0
    items = np.zeros(full.shape[1], dtype=bool)
    items[full.indices] = items[holdout.indices] = True
    new_index = (np.cumsum(items) - 1).astype(np.int32)

    def without_empty(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        ends = np.append(0, matrix.indptr[1:][users]).astype(matrix.indptr.dtype)
        shape = int(users.sum()), int(items.sum())
        return sparse.csr_matrix((matrix.data, new_index[matrix.indices], ends), shape=shape)

    return Interactions(
        interactions.users.filter(pl.Series(users)),
        interactions.items.filter(pl.Series(items)),
        train=without_empty(interactions.train),
        full=without_empty(full),
        holdout=without_empty(holdout),
        buyers=interactions.buyers[users],
    )
