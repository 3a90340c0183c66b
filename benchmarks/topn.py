"""``python benchmarks/topn.py [--shapes M L] [--factors 64 128] [--share 8]``: the top 20 of every user, three ways.

Trains on generated shops with tastes (`implicit`, three iterations), then lists the items of every `share`-th user with `top_n`,
with plain NumPy (every score, then a partial sort) and with `implicit`, one after the other in one process, and checks that the
scores agree. Seconds are scaled up to all users, and with them what `top_n` does once for the items; ``--share 1`` takes the
whole. *visited* is the share of user × item pairs that `top_n` has to score.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from measure import machine
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.als.top_n import _bases, _norms, top_n

SHAPES = {
    "S": (100_000, 2_465, 800_000),
    "M": (500_000, 30_000, 10_000_000),
    "L": (200_000, 84_000, 32_000_000),
}
N = 20


def shop(n_users: int, n_items: int, cells: int, seed: int = 0) -> sparse.csr_matrix:
    """Confidence 1 + 16·log1p(w), about so many cells.

    Items belong to clusters of about 150 and are as popular as Zipf says. A user likes three clusters; seven events of ten are
    among them, the others go by popularity alone.
    """
    rng = np.random.default_rng(seed)
    popularity = rng.permutation((np.arange(n_items) + 11) ** -0.9)
    n_clusters = max(20, n_items // 150)
    cluster = rng.integers(0, n_clusters, n_items)
    order = np.argsort(cluster, kind="stable")
    mass = np.concatenate([[0], np.cumsum(popularity[order])])
    edges = mass[np.searchsorted(cluster[order], np.arange(n_clusters + 1))]
    degrees = rng.lognormal(0, 1.1, n_users)
    repeats = 1 + 0.0045 * cells / n_users  # who does more meets more of the same
    degrees = np.clip(degrees * cells * repeats * 1.18 / degrees.sum(), 1, n_items // 4).astype(
        np.int64
    )
    tastes = rng.choice(n_clusters, (n_users, 3), p=np.diff(edges) / mass[-1])
    user = np.repeat(np.arange(n_users, dtype=np.int32), degrees)
    taste = tastes[user, rng.choice(3, len(user), p=[0.6, 0.25, 0.15])]
    at = rng.random(len(user))
    at = np.where(
        rng.random(len(user)) < 0.7, edges[taste] + at * np.diff(edges)[taste], at * mass[-1]
    )
    item = order[np.minimum(np.searchsorted(mass, at, side="right") - 1, n_items - 1)].astype(
        np.int32
    )
    weight = rng.choice(
        np.array([1, 2, 3, 5], dtype=np.float32), len(user), p=[0.7, 0.15, 0.1, 0.05]
    )
    matrix = sparse.csr_matrix((weight, (user, item)), (n_users, n_items))
    matrix.data = (1 + 16 * np.log1p(matrix.data)).astype(np.float32)
    return matrix


def plain(
    users: NDArray[np.float32], items: NDArray[np.float32], seen: sparse.csr_matrix
) -> NDArray[np.float32]:
    """The scores of the best N of every user, best first: all scores of a block, then a partial sort."""
    best = np.empty((len(users), N), dtype=np.float32)
    for start in range(0, len(users), 128):
        block = slice(start, start + 128)
        scores = users[block] @ items.T
        part = seen[block]
        scores[np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)), part.indices] = -np.inf
        ids = np.argpartition(-scores, N - 1, axis=1)[:, :N]
        best[block] = -np.sort(-np.take_along_axis(scores, ids, axis=1), axis=1)
    return best


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, wall seconds and CPU seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - began, time.process_time() - cpu


def visited(
    users: NDArray[np.float32], items: NDArray[np.float32], scores: NDArray[np.float32]
) -> float:
    """The share of pairs whose bound reaches the last listed score; tiles add a little."""
    to_user, to_item = _bases(users, items)
    norms = np.sort(_norms(items, to_item))
    reach = np.searchsorted(norms, scores[:, -1] / _norms(users, to_user))
    return 1 - float(reach.mean()) / len(items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["M", "L"], choices=SHAPES)
    parser.add_argument("--factors", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--share", type=int, default=8)
    options = parser.parse_args()
    print(machine())
    print(
        f"{'shape':>5} {'factors':>7} {'visited':>8}   seconds / CPU seconds: {'top_n':>15} {'NumPy':>17} {'implicit':>17}"
    )
    for shape in options.shapes:
        matrix = shop(*SHAPES[shape])
        for factors in options.factors:
            with threadpool_limits(1, user_api="blas"):
                model = AlternatingLeastSquares(
                    factors=factors, regularization=16, alpha=1, iterations=3, random_state=0
                )
                model.fit(matrix, show_progress=False)
            compare(shape, model, matrix, options.share)


def compare(
    shape: str, model: AlternatingLeastSquares, matrix: sparse.csr_matrix, share: int
) -> None:
    rows = np.arange(0, matrix.shape[0], share)
    users, items, seen = model.user_factors[rows], model.item_factors, matrix[rows]
    top_n(users[:600], items, N, seen=seen[:600])  # compiles
    (_, scores), *ours = timed(lambda: top_n(users, items, N, seen=seen))
    numpy_scores, *numpy_cost = timed(lambda: plain(users, items, seen))
    with threadpool_limits(1, user_api="blas"):  # with more, implicit is slower
        (_, theirs), *implicit_cost = timed(
            lambda: model.recommend(rows, seen, N=N, filter_already_liked_items=True)
        )
    np.testing.assert_allclose(scores, numpy_scores, atol=1e-5)
    np.testing.assert_allclose(scores, theirs, atol=1e-5)
    cells = "".join(
        f"{share * wall:>9.1f}/{share * cpu:>7.1f}"
        for wall, cpu in (ours, numpy_cost, implicit_cost)
    )
    print(
        f"{shape:>5} {users.shape[1]:>7} {visited(users, items, scores):>8.1%} {'':>25}{cells}",
        flush=True,
    )


if __name__ == "__main__":
    main()
