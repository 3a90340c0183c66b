"""``python benchmarks/als.py [--shapes S M L] [--factors 64 128] [--iterations 15] [--quick]``: training and top-20 lists, timed.

Prints Markdown, with the machine, all ratios from the same run: our solvers against the package `implicit` (regularisation and
objective equal, everything else as it comes); the lists of all users; a day from yesterday's factors against a cold one; a whole
day on M, from events to lists, against the usual pipeline. Data: shapes.py. A sweep's seconds: what some sweeps more take, over
their number, of the fastest runs, rivals in turn; where others use the machine, compare the CPU seconds. ``loss`` is the
objective over that of a model that says 0. NDCG@20 is that of the held-out pairs among all items the user has not met. Without a
GPU it says so, and what stands there of one is computed.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import gpu_floor
import implicit.gpu
import numpy as np
import shapes
from measure import machine
from numpy.typing import NDArray
from rivals import N, Say, Took, by_implicit, by_implicit_gpu, recommend, settings, timed
from scipy import sparse
from whole_day import whole_day

from recsys_ops.als import fit as als_fit
from recsys_ops.als import gpu
from recsys_ops.als.device import find_gpu
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.top_n import top_n
from recsys_ops.evaluation.metrics import ndcg_by_user
from recsys_ops.settings import TrainingSettings

RIVAL = "`implicit` by itself"
MORE, MORE_ON_GPU = 3, 200  # sweeps timed; on a GPU they are short beside the way there
Fit = Callable[[sparse.csr_matrix, int], Factors]


@dataclass(frozen=True)
class Trained:
    """What came out of a cold fit, in how many seconds."""

    factors: Factors
    seconds: float
    ndcg: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=shapes.SHAPES, default=list(shapes.SHAPES))
    parser.add_argument("--factors", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed")
    parser.add_argument(
        "--quick", action="store_true", help="S alone, 64 factors, 5 iterations, the whole day on S"
    )
    parser.add_argument(
        "--folder", type=Path, default=shapes.CACHE, help="where the shapes are kept"
    )
    parser.add_argument("--output", type=Path, help="write the text there as well")
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.factors, options.iterations = ["S"], [64], 5
    day = "S" if options.quick else "M"
    said: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        said.append(text)
        if options.output:
            options.output.write_text("\n".join(said) + "\n")

    card = find_gpu()
    has_gpu = card.name is not None
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("implicit", "numpy", "scipy", "numba", "pandas")
    )
    say(f"{machine()}; GPU: {card.name or f'no GPU at hand ({card.reason})'}; {packages}")
    for name in options.shapes:
        data = shapes.load(name, options.folder)
        users, items = data.train.shape
        say(f"\n## {name}: {users:,} users × {items:,} items, {data.train.nnz:,} cells")
        for factors in options.factors:
            say(f"\n### {name}, {factors} factors")
            trained = solvers(data, factors, options.iterations, options.rounds, has_gpu, say)
            lists(data, trained, options.rounds, has_gpu, say)
            yesterday = warm(data, trained, factors, options.iterations, say)
            if name == day and factors == options.factors[0]:
                whole_day(name, options.folder, factors, options.iterations, yesterday, say)


def solvers(
    data: shapes.Data, factors: int, iterations: int, rounds: int, has_gpu: bool, say: Say
) -> Trained:
    """Each solver's speed and what it reached; returns what our fastest on this machine trained."""
    fits: dict[str, Fit] = {RIVAL: partial(by_implicit, factors)}
    if implicit.gpu.HAS_CUDA:
        fits["`implicit.gpu` by itself"] = partial(by_implicit_gpu, factors)
    fits |= {
        f"recsys_ops, {solver}": partial(by_us, settings(factors, solver, data.train))
        for solver in ("implicit", "cpu", *(["gpu"] if has_gpu else []))
    }
    for each in fits.values():
        each(data.train[:50], 1)  # whatever is compiled is compiled
    more = {name: MORE_ON_GPU if "gpu" in name else MORE for name in fits}
    runs: dict[str, list[list[Took]]] = {name: [] for name in fits}
    for _ in range(rounds):
        for name, each in fits.items():
            runs[name].append(
                [timed(each, data.train, sweeps)[1] for sweeps in (1, 1 + more[name])]
            )
    sweep = {
        name: Took(*(np.diff(np.min(found, axis=0), axis=0)[0] / more[name]))
        for name, found in runs.items()
    }

    say(
        f"\n| solver | s a sweep | × `implicit` | CPU s | × `implicit` | loss after {iterations} | NDCG@{N} | s, all sweeps |"
    )
    say(f"|---|{'--:|' * 7}")
    for name, each in fits.items():
        found, took = timed(each, data.train, iterations)
        trained = Trained(found, took.wall, ndcg(data, found))
        ours, theirs = sweep[name], sweep[RIVAL]
        say(
            f"| {name} | {ours.wall:.3f} | {theirs.wall / ours.wall:.2f} | {ours.cpu:.3f} | {theirs.cpu / ours.cpu:.2f} "
            f"| {loss(data.train, found):.5f} | {trained.ndcg:.4f} | {took.wall:.1f} |"
        )
    popular = Factors(
        np.ones((data.train.shape[0], 1), np.float32), popularity(data.train)[:, None]
    )
    say(f"| popularity | | | | | | {ndcg(data, popular):.4f} | |")
    floor(data, factors, sweep["recsys_ops, gpu"].wall if has_gpu else None, say)
    return trained


def lists(data: shapes.Data, trained: Trained, rounds: int, has_gpu: bool, say: Say) -> None:
    """The best 20 unseen items of all users. Raises AssertionError when less than 99.9 % of the places hold the same item."""
    model = trained.factors
    ways = {RIVAL: partial(recommend, model, data.train)}
    ways |= {
        f"recsys_ops, {where}": partial(top, model.user, model.item, N, seen=data.train)
        for where, top in (("cpu", top_n), *([("gpu", gpu.top_n)] if has_gpu else []))
    }
    best = {name: np.full(2, np.inf) for name in ways}  # seconds, CPU seconds
    listed: dict[str, NDArray[np.int32]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            (listed[name], _), took = timed(way)
            best[name] = np.minimum(took, best[name])
    say(
        f"\n| top {N} of all users | s | × `implicit` | CPU s | × `implicit` | same items |\n|---|{'--:|' * 5}"
    )
    for name, (wall, cpu) in best.items():
        faster, less = best[RIVAL] / best[name]
        overlap = same(listed[name], listed[RIVAL], data.train.shape[1])
        say(f"| {name} | {wall:.2f} | {faster:.1f} | {cpu:.2f} | {less:.1f} | {overlap:.5f} |")
        assert overlap >= 0.999, f"{name}: only {overlap:.5f} of the places hold the same item"


def warm(data: shapes.Data, cold: Trained, factors: int, iterations: int, say: Say) -> Factors:
    """Today's model from yesterday's, which knows all but what met today; returns yesterday's factors."""
    chosen = settings(factors, "auto", data.train)
    yesterday = fit(data.yesterday(), chosen, iterations=iterations)
    sweeps = TrainingSettings().warm_iterations
    found, took = timed(fit, data.train, chosen, iterations=sweeps, factors0=yesterday)
    say(
        f"\n| {np.count_nonzero(data.new):,} new cells | sweeps | s | NDCG@{N} |\n|---|--:|--:|--:|"
    )
    say(f"| yesterday's model | 0 | | {ndcg(data, yesterday):.4f} |")
    say(f"| warm | {sweeps} | {took.wall:.1f} | {ndcg(data, found):.4f} |")
    say(f"| cold | {iterations} | {cold.seconds:.1f} | {cold.ndcg:.4f} |")
    return yesterday


def floor(data: shapes.Data, factors: int, on_the_card: float | None, say: Say) -> None:
    """What a sweep cannot take less than, and how many times that the measured seconds are."""
    rates = gpu_floor.measured() or gpu_floor.H200
    users = np.diff(data.train.indptr).astype(np.int64)
    items = np.bincount(data.train.indices, minlength=data.train.shape[1])
    least, arranged = (
        gpu_floor.iteration(users, items, factors, rates)[key] for key in ("least", "arranged")
    )
    measured = (
        f"; measured {1000 * on_the_card:.2f} ms, {on_the_card / least:.1f} × the least"
        if on_the_card
        else ""
    )
    say(
        f"\nA sweep on a GPU, computed for {rates.name} and not measured: at least {1000 * least:.2f} ms, "
        f"as `recsys_ops.als.gpu` arranges it {1000 * arranged:.2f} ms{measured}."
    )


def by_us(chosen: TrainingSettings, user_items: sparse.csr_matrix, iterations: int) -> Factors:
    return fit(user_items, chosen, iterations=iterations)


def ndcg(data: shapes.Data, factors: Factors) -> float:
    judged = np.flatnonzero(np.diff(data.holdout.indptr))
    listed, _ = top_n(factors.user[judged], factors.item, N, seen=data.train[judged])
    return float(ndcg_by_user(listed, data.holdout[judged], N).mean())


def loss(user_items: sparse.csr_matrix, factors: Factors) -> float:
    chosen = settings(factors.user.shape[1], "cpu", user_items)
    return als_fit.loss(user_items, factors, chosen) / float(user_items.data.sum(dtype=np.float64))


def popularity(user_items: sparse.csr_matrix) -> NDArray[np.float32]:
    """(n_items,): confidence − 1, summed."""
    return np.bincount(
        user_items.indices, user_items.data - 1, minlength=user_items.shape[1]
    ).astype(np.float32)


def same(ours: NDArray[np.int32], theirs: NDArray[np.int32], n_items: int) -> float:
    """The share of our places whose item is in their list of the same user."""
    users = np.arange(len(ours), dtype=np.int64)[:, None] * n_items
    listed = ours >= 0
    return float(np.isin((users + ours)[listed], (users + theirs)[theirs >= 0]).mean())


if __name__ == "__main__":
    main()
