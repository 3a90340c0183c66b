"""The hold-out: what is kept from training to evaluate a model, by each of the protocols."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.interactions.encoded_window import (
    EncodedWindow,
    matrix_of,
    stored_pairs,
    with_user_and_item_in,
)
from recsys_ops.settings import EvaluationSettings

_SEED = 1  # of the protocol `random`


@dataclass(frozen=True)
class Split:
    """How a protocol divides a window.

    train_keys : int64, sorted, keys of events (see `EncodedWindow`)
    min_age : events of `train_keys` that are younger, in days, are not trained on
    train_purchases : user, the purchases that are not held out
    held_out : int64, ascending, the numbers of the pairs that are held out
    """

    train_keys: NDArray[np.int64]
    min_age: int
    train_purchases: pl.LazyFrame
    held_out: NDArray[np.int64]


def split(window: EncodedWindow, evaluation: EvaluationSettings) -> Split:
    """Divide the window by ``evaluation.protocol``; liked are the events of ``evaluation.events``.

    - ``next_day``: the run's day is held out, and of it the liked pairs are evaluated.
    - ``random``: a seeded share of the pairs liked in the window is masked.
    - ``leave_last_out``: the pair that each user liked last is masked; of several on one day that
      of the smallest item id.

    All events of a masked pair are kept from training. A pair is masked only where its user and its
    item keep other pairs, so that the item can be recommended.
    """
    if evaluation.protocol == "next_day":
        return _hold_out_the_day(window, evaluation)
    if evaluation.protocol == "random":
        return _mask(window, _random_pairs(window, evaluation))
    return _mask(window, _last_pairs(window, evaluation))


def holdout_matrix(
    divided: Split,
    train: sparse.csr_matrix,
    seen: sparse.csr_matrix,
    evaluation: EvaluationSettings,
) -> sparse.csr_matrix:
    """csr_matrix, bool, (n_users, n_items): the pairs to evaluate a model of `train` on.

    Of masked pairs only those whose user and item are still in `train`; with ``exclude_seen`` none
    that is in `seen`.

    seen : the pairs that the users had events with before, in `train` or not
    """
    held_out = divided.held_out
    if evaluation.protocol != "next_day":
        held_out = with_user_and_item_in(held_out, stored_pairs(train), train.shape)
    holdout = matrix_of(held_out, np.ones(len(held_out), dtype=bool), train.shape)
    return (holdout > seen.astype(bool)).tocsr() if evaluation.exclude_seen else holdout


def _hold_out_the_day(window: EncodedWindow, evaluation: EvaluationSettings) -> Split:
    liked_that_day = window.of_types(evaluation.events).filter(pl.col("age") == 0)
    return Split(
        train_keys=window.keys,
        min_age=1,
        train_purchases=window.of_types(["purchase"]).filter(pl.col("age") >= 1),
        held_out=window.distinct_pairs(liked_that_day),
    )


def _mask(window: EncodedWindow, chosen: NDArray[np.int64]) -> Split:
    pairs = window.keys >> window.key_bits
    masked = with_user_and_item_in(chosen, pairs[~np.isin(pairs, chosen)], window.shape)
    is_masked = window.pair.is_in(pl.Series(masked).implode())
    return Split(
        train_keys=window.keys[~np.isin(pairs, masked)],
        min_age=0,
        train_purchases=window.of_types(["purchase"]).filter(~is_masked),
        held_out=masked,
    )


def _random_pairs(window: EncodedWindow, evaluation: EvaluationSettings) -> NDArray[np.int64]:
    liked = window.distinct_pairs(window.of_types(evaluation.events))
    drawn = np.random.default_rng(_SEED).random(len(liked))
    return liked[drawn < evaluation.random_share]


def _last_pairs(window: EncodedWindow, evaluation: EvaluationSettings) -> NDArray[np.int64]:
    n_items = len(window.items)
    # the minimum is of the smallest age, then of the smallest item
    age_then_item = pl.col("age").cast(pl.Int64) * n_items + pl.col("item")
    liked = window.of_types(evaluation.events)
    return window.distinct_pairs(liked.group_by("user").agg(item=age_then_item.min() % n_items))
