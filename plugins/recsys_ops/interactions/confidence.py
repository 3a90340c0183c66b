"""The confidence of a user–item pair from its weight, for the matrices and for fold-in alike."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_ops.settings import Bm25Settings, ConfidenceSettings

_SMALLEST = np.nextafter(np.float32(1), np.float32(2))


@dataclass(frozen=True)
class PairCounts:
    """What BM25 needs to know about the users and the items of n pairs.

    items_of_user : int, (n,), how many different items the pair's user has
    item_length : float64, (n,), the summed weight of the pair's item
    mean_length : the mean of that over all items
    n_items : how many items there are
    """

    items_of_user: NDArray[np.int64]
    item_length: NDArray[np.float64]
    mean_length: float
    n_items: int


def confidence_of(
    weight: NDArray[np.float64], settings: ConfidenceSettings, counts: Callable[[], PairCounts]
) -> NDArray[np.float32]:
    """``1 + alpha * log1p(weight)`` (Hu, Koren & Volinsky 2008, eq. 6), or with BM25
    ``1 + alpha * bm25(weight)``.

    The result is above 1: a confidence of 1 is that of a pair without an event, and less would
    count against the item.

    weight : (n,), the summed weight of the events of each pair
    counts : called with `bm25` only

    Returns float32, (n,).
    """
    strength = np.log1p(weight) if not settings.bm25 else bm25(weight, settings.bm25, counts())
    strength *= settings.alpha
    strength += 1
    confidence = strength.astype(np.float32)
    return np.maximum(confidence, _SMALLEST, out=confidence)


def bm25(
    weight: NDArray[np.float64], settings: Bm25Settings, counts: PairCounts
) -> NDArray[np.float64]:
    """The BM25 score of each pair, with the items as documents and the users as terms.

    The formula is that of ``implicit.nearest_neighbours.bm25_weight``.

    weight : (n,)

    Returns float64, (n,).
    """
    k1, b = settings.k1, settings.b
    length_norm = (1.0 - b) + b * counts.item_length / counts.mean_length
    rarity = np.log(float(counts.n_items)) - np.log1p(counts.items_of_user)
    score: NDArray[np.float64] = weight * (k1 + 1.0) / (k1 * length_norm + weight) * rarity
    return score
