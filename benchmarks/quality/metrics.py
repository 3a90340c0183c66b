"""All ranking metrics at three cut-offs from finished lists, beside four metrics of `implicit`.

`implicit.evaluation.ranking_metrics_at_k` gets a model whose lists are finished, so that both sides
are timed for the metrics only. It takes one cut-off a call and computes NDCG, MAP, precision and
AUC. The fastest of nine runs, both on all cores.
"""

import argparse
from functools import partial

import numpy as np
from implicit.evaluation import ranking_metrics_at_k
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.harness import Report, fastest
from recsys_ops.evaluation.metrics import score, self_information

CUTOFFS = (3, 10, 20)
TIMES = 9
# users, items, liked by a user
SHAPES = ((20_000, 2_465, 3), (100_000, 30_000, 5), (20_000, 84_000, 30))


class Ranked:
    """The part of a model that `implicit` needs to evaluate finished lists."""

    def __init__(self, lists: NDArray[np.int32]) -> None:
        self.lists = lists

    def recommend(
        self,
        users: NDArray[np.int32],
        _seen: object,
        N: int,  # noqa: N803
    ) -> tuple[NDArray[np.int32], None]:
        return self.lists[users, :N], None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace, report: Report) -> None:
    rival = f"`implicit`, K = {', '.join(map(str, CUTOFFS))}"
    table = report.table(
        "metrics",
        {
            "users": ",",
            "items": ",",
            "liked": ",",
            "ms": ".1f",
            rival: ".1f",
            "times as fast": ".1f",
        },
    )
    for users, items, likes in SHAPES:
        lists, relevant = made(users, items, likes)
        ours_ms, rival_ms = (
            1000 * fastest(partial(call, lists, relevant), TIMES) for call in (by_us, by_implicit)
        )
        table.add(users, items, relevant.nnz, ours_ms, rival_ms, rival_ms / ours_ms)


def by_us(lists: NDArray[np.int32], relevant: sparse.csr_matrix) -> None:
    popular, information = np.arange(CUTOFFS[-1], dtype=np.int32), self_information(relevant)
    score(lists, relevant, CUTOFFS, most_popular=popular, information=information).metrics()


def by_implicit(lists: NDArray[np.int32], relevant: sparse.csr_matrix) -> None:
    for k in CUTOFFS:
        ranking_metrics_at_k(Ranked(lists), relevant, relevant, K=k, show_progress=False)


def made(users: int, items: int, likes: int) -> tuple[NDArray[np.int32], sparse.csr_matrix]:
    """Lists of different items and what each user liked, the popular ones more often."""
    rng = np.random.default_rng(1)
    popularity = 1 / (np.arange(items) + 10.0)
    lists = rng.integers(items, size=(users, 1)) + np.cumsum(
        rng.integers(1, items // CUTOFFS[-1], (users, CUTOFFS[-1])), axis=1
    )
    counts = rng.poisson(likes, users).clip(1)
    liked = rng.choice(items, counts.sum(), p=popularity / popularity.sum())
    relevant = sparse.csr_matrix(
        (np.ones(len(liked), bool), (np.repeat(np.arange(users), counts), liked)), (users, items)
    )
    return (lists % items).astype(np.int32), relevant
