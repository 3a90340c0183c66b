"""Ranking metrics of top-K lists against what people liked, with binary relevance.

Definitions as in Järvelin & Kekäläinen 2002 (NDCG), Zhou et al. 2010 and Castells, Hurley & Vargas 2015 (novelty, there: mean
self-information) and Manning, Raghavan & Schütze 2008, ch. 8 (the others). The first five are means over the users with at least
one liked item, the others are of all these users' lists together:

- ``ndcg@k``       Σ 1/log2(place + 1) over the hits, over the same sum for a perfect list of min(k, liked) hits
- ``map@k``        Σ precision at the place of each hit, over min(k, liked)
- ``recall@k``     hits over liked
- ``precision@k``  hits over k, also where the list is shorter
- ``hit_rate@k``   1 with at least one hit, else 0
- ``coverage@k``   the share of all items that stand in anybody's first k
- ``popular@k``    the share of all places 1…k taken by the k items most popular overall
- ``novelty@k``    the mean of −log2(share of users who had met the item) over the items listed: bits
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
_LEAST_ROWS = 4096  # that are worth a thread


@dataclass(frozen=True)
class Scores:
    """What every user's list is worth at every cut-off: made once, then averaged over whomever one asks about.

    lists : (n_users, K), item indices, best first, padded with −1 · liked : int, (n_users,), how many each liked
    ndcg, average_precision : float64, hits : int32, (n_cuts, n_users); 0 for one who liked nothing
    most_popular : (≥ max(k),), item indices, most popular first, −1 where there are no more
    information : float64, (n_items,), see `self_information`; None: no novelty
    """

    k: tuple[int, ...]
    n_items: int
    lists: NDArray[np.int32]
    liked: NDArray[np.int32]
    ndcg: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    hits: NDArray[np.int32]
    most_popular: NDArray[np.int32]
    information: NDArray[np.float64] | None

    def metrics(self, of: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Every metric of the module at every cut-off, by name; zeros where no user liked anything.

        of : (n_users,), the users it is about, all when None
        """
        judged = self.liked > 0 if of is None else of & (self.liked > 0)
        all_judged = bool(judged.all())
        n_users = max(1, int(np.count_nonzero(judged)))
        times = np.zeros((len(self.k), self.n_items), dtype=np.int32)
        _count(self.lists, judged, np.array(self.k), times)
        np.cumsum(times, axis=0, out=times)
        result: dict[str, float] = {}
        for at, cut in enumerate(self.k):
            hits, liked, ndcg, precision = (
                values if all_judged else values[judged]
                for values in (self.hits[at], self.liked, self.ndcg[at], self.average_precision[at])
            )
            popular = self.most_popular[:cut]
            result |= {
                f"ndcg@{cut}": ndcg.sum() / n_users,
                f"map@{cut}": precision.sum() / n_users,
                f"recall@{cut}": (hits / liked).sum() / n_users,
                f"precision@{cut}": hits.sum() / (n_users * cut),
                f"hit_rate@{cut}": np.count_nonzero(hits) / n_users,
                f"coverage@{cut}": np.count_nonzero(times[at]) / self.n_items,
                f"popular@{cut}": times[at][popular[popular >= 0]].sum() / (n_users * cut),
            }
            if self.information is not None:
                result[f"novelty@{cut}"] = times[at] @ self.information / max(1, times[at].sum())
        return {name: float(value) for name, value in result.items()}

    def segments(self, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
        """The metrics of some of the users each, and ``users``, how many of them liked something. They may overlap.

        masks : (n_users,) each, by the segment's name
        """
        return {
            name: {"users": float((mask & (self.liked > 0)).sum()), **self.metrics(mask)}
            for name, mask in masks.items()
        }


def score(
    lists: NDArray[np.int32],
    relevant: sparse.csr_matrix,
    k: Sequence[int],
    *,
    most_popular: NDArray[np.int32],
    information: NDArray[np.float64] | None = None,
) -> Scores:
    """Judge every list by what its user liked. The work of a list of K and L liked items is K + L.

    lists : (n_users, K), item indices, best first, no item twice, padded with −1; K ≥ max(k)
    relevant : csr_matrix, (n_users, n_items); what is stored counts as liked
    k : ascending
    most_popular, information : see `Scores`
    """
    n_users, n_items = relevant.shape
    ndcg, average_precision = np.zeros((2, len(k), n_users))
    hits = np.zeros((len(k), n_users), dtype=np.int32)
    gains = 1 / np.log2(np.arange(2, k[-1] + 2))

    def judge(begin: int, end: int) -> None:
        part, liked = slice(begin, end), np.zeros(n_items, dtype=np.bool_)
        _judge(
            lists[part], relevant.indptr[begin : end + 1], relevant.indices, np.array(k), gains, np.append(0, np.cumsum(gains)),
            liked, ndcg[:, part], average_precision[:, part], hits[:, part],
        )  # fmt: skip

    n_parts = max(1, min(os.cpu_count() or 1, n_users // _LEAST_ROWS))
    borders = np.linspace(0, n_users, n_parts + 1).astype(int)
    with ThreadPoolExecutor(n_parts) as pool:
        list(pool.map(judge, borders[:-1], borders[1:]))
    liked = np.diff(relevant.indptr)
    return Scores(
        tuple(k), n_items, lists, liked, ndcg, average_precision, hits, most_popular, information
    )


def ranking_metrics(
    lists: NDArray[np.int32],
    relevant: sparse.csr_matrix,
    k: Sequence[int],
    *,
    most_popular: NDArray[np.int32],
    information: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Every metric of the module at every cut-off, by name. Arguments as in `score`."""
    return score(lists, relevant, k, most_popular=most_popular, information=information).metrics()


def ndcg_by_user(
    lists: NDArray[np.int32], relevant: sparse.csr_matrix, k: int
) -> NDArray[np.float64]:
    """NDCG@k of each user, (n_users,); 0 for one who liked nothing. Shapes as in `score`."""
    ndcg: NDArray[np.float64] = score(
        lists, relevant, [k], most_popular=np.zeros(0, dtype=np.int32)
    ).ndcg[0]
    return ndcg


def self_information(met: sparse.csr_matrix) -> NDArray[np.float64]:
    """(n_items,): −log2 of the share of users who met each item, in bits; one that nobody met counts as met by one.

    met : csr_matrix, (n_users, n_items); what is stored counts as met, users without a cell do not count
    """
    n_users = max(1, np.count_nonzero(np.diff(met.indptr)))
    bits: NDArray[np.float64] = np.log2(
        n_users / np.maximum(1, np.bincount(met.indices, minlength=met.shape[1]))
    )
    return bits


def lower_bound(differences: NDArray[np.float64], draws: int, seed: int) -> float:
    """The lower 2.5 % bound of the mean of paired differences: percentile bootstrap over users (Efron & Tibshirani 1993, ch. 13).

    Users with the same difference are exchangeable, so that a draw is one multinomial over the distinct values. Of more than
    1,024, those within a thousandth of the range count as their mean: the variance lost is less than a millionth of the range's
    square, and a draw costs the same for any number of users.

    differences : (n_users,), one user's score under one model less that under the other; 0.0 when empty
    """
    if not len(differences):
        return 0.0
    values, group = np.unique(differences, return_inverse=True)
    if len(values) > _GROUPS:
        group = np.round(
            (differences - values[0]) * ((_GROUPS - 1) / (values[-1] - values[0]))
        ).astype(np.int64)
    counts = np.bincount(group)
    values = np.bincount(group, weights=differences) / np.maximum(1, counts)
    drawn = np.random.default_rng(seed).multinomial(
        len(differences), counts / len(differences), size=draws
    )
    return float(np.quantile(drawn @ values / len(differences), 0.025))


@jit()
def _judge(lists, indptr, items, cuts, gains, ideal, liked, ndcg, average_precision, hits):  # type: ignore[no-untyped-def]
    """Fill in a part of the users. `liked`, (n_items,), is all false before and after."""
    for user in range(len(lists)):
        begin, end = indptr[user], indptr[user + 1]
        if begin == end:
            continue
        for cell in range(begin, end):
            liked[items[cell]] = True
        place, found, gain, precision = 0, 0, 0.0, 0.0
        for at in range(len(cuts)):
            while place < cuts[at]:
                item = lists[user, place]
                if item >= 0 and liked[item]:
                    found += 1
                    gain += gains[place]
                    precision += found / (place + 1)
                place += 1
            best = min(end - begin, cuts[at])
            ndcg[at, user], average_precision[at, user], hits[at, user] = (
                gain / ideal[best],
                precision / best,
                found,
            )
        for cell in range(begin, end):
            liked[items[cell]] = False


@jit()
def _count(lists, chosen, cuts, times):  # type: ignore[no-untyped-def]
    """Add to `times`, (n_cuts, n_items), how often each item stands between one cut-off and the next."""
    for user in range(len(lists)):
        if not chosen[user]:
            continue
        place = 0
        for at in range(len(cuts)):
            while place < cuts[at]:
                if lists[user, place] >= 0:
                    times[at, lists[user, place]] += 1
                place += 1
