"""Ranking metrics of top-K lists against what people liked, with binary relevance.

Definitions as in Järvelin & Kekäläinen 2002 (NDCG) and Manning, Raghavan & Schütze 2008, ch. 8 (the others), each the mean over
users with at least one liked item:

- ``ndcg@k``       Σ 1/log2(place + 1) over the hits, over the same sum for a perfect list of min(k, liked) hits
- ``map@k``        Σ precision at the place of each hit, over min(k, liked)
- ``recall@k``     hits over liked
- ``precision@k``  hits over k, also where the list is shorter
- ``hit_rate@k``   1 with at least one hit, else 0
- ``coverage@k``   the share of all items that stand in anybody's first k
- ``popular@k``    the share of all places 1…k taken by the k items most popular overall
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def ranking_metrics(
    lists: NDArray[np.int32], relevant: sparse.csr_matrix, k: Sequence[int], *, most_popular: NDArray[np.int32]
) -> dict[str, float]:
    """Every metric of the module at every cut-off, by name; zeros where no user liked anything.

    lists : (n_users, K), item indices, best first, padded with −1; K ≥ max(k)
    relevant : csr_matrix, (n_users, n_items); what is stored counts as liked
    most_popular : (≥ max(k),), item indices, most popular first
    """
    liked = np.diff(relevant.indptr)
    judged = liked > 0
    hits, liked, lists = _hits(lists, relevant)[judged], liked[judged], lists[judged]
    n_users = max(1, len(lists))
    result: dict[str, float] = {}
    for cut in k:
        top, best = hits[:, :cut], np.minimum(liked, cut)
        listed = lists[:, :cut]
        found = top.sum(axis=1)
        precision_at = np.cumsum(top, axis=1) / np.arange(1, cut + 1)
        result |= {
            f"ndcg@{cut}": _ndcg(top, liked).sum() / n_users,
            f"map@{cut}": ((precision_at * top).sum(axis=1) / best).sum() / n_users,
            f"recall@{cut}": (found / liked).sum() / n_users,
            f"precision@{cut}": found.sum() / (n_users * cut),
            f"hit_rate@{cut}": np.count_nonzero(found) / n_users,
            f"coverage@{cut}": np.count_nonzero(np.unique(listed) >= 0) / relevant.shape[1],
            f"popular@{cut}": np.isin(listed, most_popular[:cut]).sum() / (n_users * cut),
        }
    return {name: float(value) for name, value in result.items()}


def ndcg_by_user(lists: NDArray[np.int32], relevant: sparse.csr_matrix, k: int) -> NDArray[np.float64]:
    """NDCG@k of each user; 0 for one who liked nothing. Shapes as in `ranking_metrics`; returns (n_users,)."""
    return _ndcg(_hits(lists, relevant)[:, :k], np.diff(relevant.indptr))


def lower_bound(differences: NDArray[np.float64], draws: int, seed: int) -> float:
    """The lower 2.5 % bound of the mean of paired differences: percentile bootstrap over users (Efron & Tibshirani 1993, ch. 13).

    Users with the same difference are exchangeable, so that a draw is one multinomial over the distinct values.

    differences : (n_users,), one user's score under one model less that under the other; 0.0 when empty
    """
    if not len(differences):
        return 0.0
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(differences), counts / len(differences), size=draws)
    return float(np.quantile(drawn @ values / len(differences), 0.025))


def _hits(lists: NDArray[np.int32], relevant: sparse.csr_matrix) -> NDArray[np.bool_]:
    """(n_users, K): whether the user liked the item at that place."""
    n_users, n_items = relevant.shape
    liked = np.repeat(np.arange(n_users, dtype=np.int64), np.diff(relevant.indptr)) * n_items + relevant.indices
    listed = np.arange(n_users, dtype=np.int64)[:, None] * n_items + lists
    return np.isin(listed, liked) & (lists >= 0)


def _ndcg(hits: NDArray[np.bool_], liked: NDArray[np.int32]) -> NDArray[np.float64]:
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[1.0], np.cumsum(gains)])  # nobody to please: 0 hits over 1
    per_user: NDArray[np.float64] = (hits @ gains) / ideal[np.minimum(liked, hits.shape[1])]
    return per_user
