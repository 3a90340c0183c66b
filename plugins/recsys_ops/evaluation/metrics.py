"""Ranking metrics of top-K lists against what users liked, with binary relevance.

Definitions as in Järvelin & Kekäläinen 2002 (NDCG), Zhou et al. 2010 and Castells, Hurley & Vargas
2015 (novelty, there: mean self-information) and Manning, Raghavan & Schütze 2008, ch. 8 (the
others). The first five are means over the users with at least one liked item; the others are of the
lists of all these users together:

- ``ndcg@k``       Σ 1/log2(place + 1) over the hits, over the same sum for a perfect list of
  min(k, liked) hits
- ``map@k``        Σ precision at the place of each hit, over min(k, liked)
- ``recall@k``     hits over liked
- ``precision@k``  hits over k, also where the list is shorter
- ``hit_rate@k``   1 with at least one hit, else 0
- ``coverage@k``   the share of all items that are in the first k of any list
- ``popular@k``    the share of all places 1…k taken by the k most popular items
- ``novelty@k``    the mean of −log2(share of users who have the item) over the listed items: bits
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.jit import jit

_GROUPS = 1024
_MIN_ROWS = 4096  # that are worth a thread


@dataclass(frozen=True)
class Scores:
    """The scores of each user's list at each cut-off; their means are taken over any set of users.

    lists : int32, (n_users, K), item indices, best first, padded with −1
    n_liked : int32, (n_users,), how many items each liked
    ndcg, average_precision : float64, (n_cutoffs, n_users); 0 for a user who liked nothing
    hits : int32, (n_cutoffs, n_users)
    most_popular : int32, (≥ max(cutoffs),), item indices, most popular first, padded with −1
    information : float64, (n_items,), see `self_information`; None: no novelty
    """

    cutoffs: tuple[int, ...]
    n_items: int
    lists: NDArray[np.int32]
    n_liked: NDArray[np.int32]
    ndcg: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    hits: NDArray[np.int32]
    most_popular: NDArray[np.int32]
    information: NDArray[np.float64] | None

    def metrics(self, of: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Every metric of the module at every cut-off, by name; zeros where no user liked anything.

        of : (n_users,), which users, all when None
        """
        counted = self.n_liked > 0 if of is None else of & (self.n_liked > 0)
        all_counted = bool(counted.all())
        n_users = max(1, int(np.count_nonzero(counted)))
        times_listed = np.zeros((len(self.cutoffs), self.n_items), dtype=np.int32)
        _count(self.lists, counted, np.array(self.cutoffs), times_listed)
        np.cumsum(times_listed, axis=0, out=times_listed)
        result: dict[str, float] = {}
        for row, k in enumerate(self.cutoffs):
            hits, n_liked, ndcg, average_precision = (
                values if all_counted else values[counted]
                for values in (
                    self.hits[row], self.n_liked, self.ndcg[row], self.average_precision[row]
                )
            )  # fmt: skip
            times, popular = times_listed[row], self.most_popular[:k]
            result |= {
                f"ndcg@{k}": ndcg.sum() / n_users,
                f"map@{k}": average_precision.sum() / n_users,
                f"recall@{k}": (hits / n_liked).sum() / n_users,
                f"precision@{k}": hits.sum() / (n_users * k),
                f"hit_rate@{k}": np.count_nonzero(hits) / n_users,
                f"coverage@{k}": np.count_nonzero(times) / self.n_items,
                f"popular@{k}": times[popular[popular >= 0]].sum() / (n_users * k),
            }
            if self.information is not None:
                result[f"novelty@{k}"] = times @ self.information / max(1, times.sum())
        return {name: float(value) for name, value in result.items()}

    def segments(self, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
        """The metrics of each segment, and ``users``, how many of its users liked something.

        masks : (n_users,) each, by the segment's name; segments may overlap
        """
        return {
            name: {"users": float((mask & (self.n_liked > 0)).sum()), **self.metrics(mask)}
            for name, mask in masks.items()
        }


def score(
    lists: NDArray[np.int32],
    relevant: sparse.csr_matrix,
    cutoffs: Sequence[int],
    *,
    most_popular: NDArray[np.int32],
    information: NDArray[np.float64] | None = None,
) -> Scores:
    """Score each list by what its user liked, in K + L steps for K listed and L liked items.

    lists : int32, (n_users, K), item indices, best first, no item twice, padded with −1;
        K ≥ max(cutoffs)
    relevant : csr_matrix, (n_users, n_items); every stored cell counts as liked
    cutoffs : ascending
    most_popular, information : see `Scores`
    """
    n_users, n_items = relevant.shape
    ndcg, average_precision = np.zeros((2, len(cutoffs), n_users))
    hits = np.zeros((len(cutoffs), n_users), dtype=np.int32)
    gains = 1 / np.log2(np.arange(2, cutoffs[-1] + 2))
    ideal_gains = np.append(0, np.cumsum(gains))

    def score_part(begin: int, end: int) -> None:
        part = slice(begin, end)
        _score(
            lists[part],
            relevant.indptr[begin : end + 1],
            relevant.indices,
            np.array(cutoffs),
            gains,
            ideal_gains,
            np.zeros(n_items, dtype=np.bool_),
            ndcg[:, part],
            average_precision[:, part],
            hits[:, part],
        )

    n_parts = max(1, min(os.cpu_count() or 1, n_users // _MIN_ROWS))
    borders = np.linspace(0, n_users, n_parts + 1).astype(int)
    with ThreadPoolExecutor(n_parts) as pool:
        list(pool.map(score_part, borders[:-1], borders[1:]))
    return Scores(
        tuple(cutoffs),
        n_items,
        lists,
        np.diff(relevant.indptr),
        ndcg,
        average_precision,
        hits,
        most_popular,
        information,
    )


def ranking_metrics(
    lists: NDArray[np.int32],
    relevant: sparse.csr_matrix,
    cutoffs: Sequence[int],
    *,
    most_popular: NDArray[np.int32],
    information: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Every metric of the module at every cut-off, by name. Arguments as in `score`."""
    scores = score(lists, relevant, cutoffs, most_popular=most_popular, information=information)
    return scores.metrics()


def ndcg_by_user(
    lists: NDArray[np.int32], relevant: sparse.csr_matrix, k: int
) -> NDArray[np.float64]:
    """NDCG@k of each user, (n_users,); 0 for a user who liked nothing. Shapes as in `score`."""
    ndcg: NDArray[np.float64] = score(
        lists, relevant, [k], most_popular=np.zeros(0, dtype=np.int32)
    ).ndcg[0]
    return ndcg


def self_information(user_items: sparse.csr_matrix) -> NDArray[np.float64]:
    """(n_items,): −log2 of the share of users who have each item, in bits.

    An item that no user has counts as if one had it.

    user_items : csr_matrix, (n_users, n_items); every stored cell counts, users without a cell do
        not
    """
    n_users = max(1, np.count_nonzero(np.diff(user_items.indptr)))
    users_of_item = np.bincount(user_items.indices, minlength=user_items.shape[1])
    bits: NDArray[np.float64] = np.log2(n_users / np.maximum(1, users_of_item))
    return bits


def lower_bound(differences: NDArray[np.float64], draws: int, seed: int) -> float:
    """The lower 2.5 % bound of the mean of paired differences.

    Percentile bootstrap over users (Efron & Tibshirani 1993, ch. 13). Users with the same
    difference are exchangeable, so a draw is one multinomial over the distinct values. If there are
    more than 1,024 of these, those within a thousandth of the range count as their mean: the
    variance lost is less than a millionth of the range's square, and a draw costs the same for any
    number of users.

    differences : float64, (n_users,), a user's score under one model minus that under the other

    Returns 0.0 when `differences` is empty.
    """
    if not len(differences):
        return 0.0
    values, group = np.unique(differences, return_inverse=True)
    if len(values) > _GROUPS:
        group = np.round(
            (differences - values[0]) * ((_GROUPS - 1) / (values[-1] - values[0]))
        ).astype(np.int64)
    counts = np.bincount(group)
    means = np.bincount(group, weights=differences) / np.maximum(1, counts)
    drawn = np.random.default_rng(seed).multinomial(
        len(differences), counts / len(differences), size=draws
    )
    return float(np.quantile(drawn @ means / len(differences), 0.025))


@jit()
def _score(  # type: ignore[no-untyped-def]
    lists, relevant_indptr, relevant_items, cutoffs, gains, ideal_gains, is_liked,
    ndcg, average_precision, hits,
):  # fmt: skip
    """Fill in `ndcg`, `average_precision` and `hits`, (n_cutoffs, n_users), of some users.

    gains : (max(cutoffs),), 1/log2(place + 1) · ideal_gains : (max(cutoffs) + 1,), their sums
    is_liked : bool, (n_items,), all false before and after
    """
    for user in range(len(lists)):
        begin, end = relevant_indptr[user], relevant_indptr[user + 1]
        if begin == end:
            continue
        for cell in range(begin, end):
            is_liked[relevant_items[cell]] = True
        place, n_hits, gain, precision_sum = 0, 0, 0.0, 0.0
        for row in range(len(cutoffs)):
            while place < cutoffs[row]:
                item = lists[user, place]
                if item >= 0 and is_liked[item]:
                    n_hits += 1
                    gain += gains[place]
                    precision_sum += n_hits / (place + 1)
                place += 1
            max_hits = min(end - begin, cutoffs[row])
            ndcg[row, user] = gain / ideal_gains[max_hits]
            average_precision[row, user] = precision_sum / max_hits
            hits[row, user] = n_hits
        for cell in range(begin, end):
            is_liked[relevant_items[cell]] = False


@jit()
def _count(lists, chosen, cutoffs, times_listed):  # type: ignore[no-untyped-def]
    """Add how often each item is listed between one cut-off and the next.

    chosen : bool, (n_users,) · times_listed : int32, (n_cutoffs, n_items)
    """
    for user in range(len(lists)):
        if not chosen[user]:
            continue
        place = 0
        for row in range(len(cutoffs)):
            while place < cutoffs[row]:
                if lists[user, place] >= 0:
                    times_listed[row, lists[user, place]] += 1
                place += 1
