"""The confidence of a pair, which the matrices and fold-in share."""

import numpy as np
from implicit.nearest_neighbours import bm25_weight
from scipy import sparse

from recsys_ops.interactions.confidence import PairCounts, bm25, confidence_of
from recsys_ops.settings import Bm25Settings, ConfidenceSettings


def no_counts() -> PairCounts:
    raise AssertionError("without BM25 nothing is counted")


def test_without_bm25_it_is_that_of_hu_koren_and_volinsky():
    weight = np.array([0.5, 3.0])
    confidence = confidence_of(weight, ConfidenceSettings(alpha=4), no_counts)
    assert confidence.dtype == np.float32
    assert confidence.tolist() == (1 + 4 * np.log1p(weight)).astype(np.float32).tolist()


def test_the_smallest_weight_still_gives_more_than_no_event():
    assert confidence_of(np.array([1e-12]), ConfidenceSettings(alpha=1), no_counts)[0] > 1


def test_bm25_is_that_of_implicit():
    rng = np.random.default_rng(1)
    items_by_users = sparse.random_array((30, 50), density=0.2, format="coo", rng=rng)
    item, user, weight = items_by_users.row, items_by_users.col, items_by_users.data
    lengths = np.bincount(item, weights=weight, minlength=30)
    counts = PairCounts(
        np.bincount(user, minlength=50)[user], lengths[item], float(lengths.mean()), 30
    )
    expected = bm25_weight(sparse.coo_matrix(items_by_users), K1=1.2, B=0.3).data
    assert bm25(weight, Bm25Settings(k1=1.2, b=0.3), counts).tolist() == expected.tolist()
