"""``python benchmarks/metrics.py``: all metrics at three cut-offs from lists already made, beside `implicit`'s four.

`implicit.evaluation.ranking_metrics_at_k` is given a model that has its lists ready, so that both sides are timed for the metrics
alone; it takes one cut-off a call, NDCG, MAP, precision and AUC. The best of nine runs, both on all cores.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from implicit.evaluation import ranking_metrics_at_k
from measure import machine
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.evaluation.metrics import score, self_information

K = (3, 10, 20)
SHAPES = {
    "S": (20_000, 2_465, 3),
    "M": (100_000, 30_000, 5),
    "L": (20_000, 84_000, 30),
}  # users, items, liked by a user


class Ranked:
    """What `implicit` needs of a model to score the lists given."""

    def __init__(self, lists: NDArray[np.int32]) -> None:
        self.lists = lists

    def recommend(
        self, users: NDArray[np.int32], _seen: object, N: int
    ) -> tuple[NDArray[np.int32], None]:
        return self.lists[users, :N], None


def main() -> None:
    print(machine())
    print(
        f"\n| shape | users | items | liked | ms | `implicit`, K = {', '.join(map(str, K))} | times as fast |\n|---|{'--:|' * 6}"
    )
    for name, (users, items, likes) in SHAPES.items():
        lists, relevant = made(users, items, likes)
        ours, theirs = best(by_us, lists, relevant), best(by_implicit, lists, relevant)
        print(
            f"| {name} | {users:,} | {items:,} | {relevant.nnz:,} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} |"
        )


def by_us(lists: NDArray[np.int32], relevant: sparse.csr_matrix) -> None:
    popular, information = np.arange(K[-1], dtype=np.int32), self_information(relevant)
    score(lists, relevant, K, most_popular=popular, information=information).metrics()


def by_implicit(lists: NDArray[np.int32], relevant: sparse.csr_matrix) -> None:
    for k in K:
        ranking_metrics_at_k(Ranked(lists), relevant, relevant, K=k, show_progress=False)


def made(users: int, items: int, likes: int) -> tuple[NDArray[np.int32], sparse.csr_matrix]:
    """Lists of different items and what each user liked, the popular ones more often."""
    rng = np.random.default_rng(1)
    popularity = 1 / (np.arange(items) + 10.0)
    lists = rng.integers(items, size=(users, 1)) + np.cumsum(
        rng.integers(1, items // K[-1], (users, K[-1])), axis=1
    )
    counts = rng.poisson(likes, users).clip(1)
    liked = rng.choice(items, counts.sum(), p=popularity / popularity.sum())
    relevant = sparse.csr_matrix(
        (np.ones(len(liked), bool), (np.repeat(np.arange(users), counts), liked)), (users, items)
    )
    return (lists % items).astype(np.int32), relevant


def best(call: Callable[..., None], *arguments: Any) -> float:
    """Milliseconds."""
    took = []
    for _ in range(9):
        began = time.perf_counter()
        call(*arguments)
        took.append(time.perf_counter() - began)
    return 1000 * min(took)


if __name__ == "__main__":
    main()
