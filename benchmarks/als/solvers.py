"""Training and top-20 lists against the package `implicit`, and a warm start against a cold one.

Regularisation and objective are equal; everything else is each package's default. All ratios are of
one run; the rivals take turns. The seconds of a sweep are the additional seconds of several more
sweeps, divided by their number, of the fastest runs. If others use the machine, compare the CPU
seconds. ``loss`` is the objective divided by that of a model whose scores are all 0. NDCG@20 is
that of the held-out pairs among all items that the user has not met. The data are those of
shapes.py.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import implicit.gpu
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import shapes
from benchmarks.als import floor
from benchmarks.als.rivals import N, by_implicit, by_implicit_gpu, recommend, settings
from benchmarks.harness import Report, timed
from recsys_ops.als import fit as als_fit
from recsys_ops.als import gpu
from recsys_ops.als.device import find_gpu
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.top_n import top_n
from recsys_ops.evaluation.metrics import ndcg_by_user
from recsys_ops.settings import TrainingSettings

RIVAL = "`implicit` by itself"
MORE, MORE_ON_GPU = 3, 200  # sweeps timed; on a GPU a sweep is short beside the transfers
Fit = Callable[[sparse.csr_matrix, int], Factors]


@dataclass(frozen=True)
class Trained:
    """The result of a cold fit, and its seconds."""

    factors: Factors
    seconds: float
    ndcg: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", nargs="+", choices=shapes.SHAPES, default=list(shapes.SHAPES))
    parser.add_argument("--factors", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed")
    parser.add_argument(
        "--folder", type=Path, default=shapes.CACHE, help="where the shapes are kept"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    if options.quick:
        options.shapes, options.factors, options.iterations = ["S"], [64], 5
    has_gpu = find_gpu().name is not None
    for name in options.shapes:
        data = shapes.load(name, options.folder)
        for factors in options.factors:
            title = f"{name}-{factors}"
            trained = solvers(data, factors, options, has_gpu, report, title)
            lists(data, trained, options.rounds, has_gpu, report, title)
            warm(data, trained, factors, options.iterations, report, title)
    summarise(report)


def solvers(
    data: shapes.Data,
    factors: int,
    options: argparse.Namespace,
    has_gpu: bool,
    report: Report,
    title: str,
) -> Trained:
    """The speed, loss and NDCG of each solver; returns the result of our fastest one here."""
    fits: dict[str, Fit] = {RIVAL: partial(by_implicit, factors)}
    if implicit.gpu.HAS_CUDA:
        fits["`implicit.gpu` by itself"] = partial(by_implicit_gpu, factors)
    fits |= {
        f"recsys_ops, {solver}": partial(by_us, settings(factors, solver, data.train))
        for solver in ("implicit", "cpu", *(["gpu"] if has_gpu else []))
    }
    for each in fits.values():
        each(data.train[:50], 1)  # compiles
    more = {name: MORE_ON_GPU if "gpu" in name else MORE for name in fits}
    costs: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in fits}
    for _ in range(options.rounds):
        for name, each in fits.items():
            runs = [timed(each, data.train, sweeps)[1] for sweeps in (1, 1 + more[name])]
            costs[name].append([(cost.seconds, cost.cpu_seconds) for cost in runs])
    # (seconds, CPU seconds) of a sweep
    sweep = {
        name: np.diff(np.min(rounds, axis=0), axis=0)[0] / more[name]
        for name, rounds in costs.items()
    }
    users, items = data.train.shape
    table = report.table(
        f"solvers-{title}",
        {
            "solver": "",
            "s a sweep": ".4g",
            "× `implicit`": ".2f",
            "CPU s a sweep": ".4g",
            "× `implicit`, CPU": ".2f",
            f"loss after {options.iterations}": ".5f",
            f"NDCG@{N}": ".4f",
            "s, all sweeps": ".1f",
        },
        f"{title}: {users:,} users × {items:,} items, {data.train.nnz:,} cells, {factors} factors",
    )
    for name, each in fits.items():
        fitted, cost = timed(each, data.train, options.iterations)
        trained = Trained(fitted, cost.seconds, ndcg(data, fitted))
        ratios = sweep[RIVAL] / sweep[name]
        table.add(
            name,
            float(sweep[name][0]),
            float(ratios[0]),
            float(sweep[name][1]),
            float(ratios[1]),
            loss(data.train, fitted),
            trained.ndcg,
            cost.seconds,
        )
    popular = Factors(
        np.ones((data.train.shape[0], 1), np.float32), popularity(data.train)[:, None]
    )
    table.add("popularity", None, None, None, None, None, ndcg(data, popular), None)
    floor_of(data, factors, float(sweep["recsys_ops, gpu"][0]) if has_gpu else None, report, title)
    return trained


def lists(
    data: shapes.Data, trained: Trained, rounds: int, has_gpu: bool, report: Report, title: str
) -> None:
    """The top 20 unseen items of all users.

    Raises AssertionError when less than 99.9 % of the places hold the same item as `implicit`'s.
    """
    model = trained.factors
    ways = {RIVAL: partial(recommend, model, data.train)}
    ways |= {
        f"recsys_ops, {solver}": partial(top, model.user, model.item, N, seen=data.train)
        for solver, top in (("cpu", top_n), *([("gpu", gpu.top_n)] if has_gpu else []))
    }
    best = {name: np.full(2, np.inf) for name in ways}  # seconds, CPU seconds
    listed: dict[str, NDArray[np.int32]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            (listed[name], _), cost = timed(way)
            best[name] = np.minimum((cost.seconds, cost.cpu_seconds), best[name])
    table = report.table(
        f"lists-{title}",
        {
            f"top {N} of all users": "",
            "s": ".2f",
            "× `implicit`": ".1f",
            "CPU s": ".2f",
            "× `implicit`, CPU": ".1f",
            "same items": ".5f",
        },
    )
    for name, (seconds, cpu_seconds) in best.items():
        ratios = best[RIVAL] / best[name]
        overlap = same(listed[name], listed[RIVAL], data.train.shape[1])
        table.add(
            name,
            float(seconds),
            float(ratios[0]),
            float(cpu_seconds),
            float(ratios[1]),
            overlap,
        )
        assert overlap >= 0.999, f"{name}: only {overlap:.5f} of the places hold the same item"


def warm(
    data: shapes.Data, cold: Trained, factors: int, iterations: int, report: Report, title: str
) -> None:
    """A warm start from yesterday's model, which lacks the pairs that met today."""
    chosen = settings(factors, "auto", data.train)
    yesterday = fit(data.yesterday(), chosen, iterations=iterations)
    sweeps = TrainingSettings().warm_iterations
    fitted, cost = timed(fit, data.train, chosen, iterations=sweeps, factors0=yesterday)
    table = report.table(
        f"warm-{title}",
        {
            f"{np.count_nonzero(data.new):,} new cells": "",
            "sweeps": "",
            "s": ".1f",
            f"NDCG@{N}": ".4f",
        },
    )
    table.add("yesterday's model", 0, None, ndcg(data, yesterday))
    table.add("warm", sweeps, cost.seconds, ndcg(data, fitted))
    table.add("cold", iterations, cold.seconds, cold.ndcg)


def floor_of(
    data: shapes.Data, factors: int, seconds: float | None, report: Report, title: str
) -> None:
    """The least time of a sweep on the GPU; seconds : the measured time of one, if there is one."""
    rates = floor.measured() or floor.H200
    users = np.diff(data.train.indptr).astype(np.int64)
    items = np.bincount(data.train.indices, minlength=data.train.shape[1])
    computed = floor.iteration(users, items, factors, rates)
    table = report.table(
        f"floor-{title}",
        {
            f"a sweep, computed for {rates.name}": "",
            "at least, ms": ".2f",
            "as `recsys_ops.als.gpu` does it, ms": ".2f",
            "measured, ms": ".2f",
            "measured / at least": ".1f",
        },
    )
    table.add(
        title,
        1000 * computed["least"],
        1000 * computed["arranged"],
        seconds and 1000 * seconds,
        seconds and seconds / computed["least"],
    )


def summarise(report: Report) -> None:
    """The two tables of the page on training: our fastest solver here beside `implicit`."""
    titles = [name.removeprefix("solvers-") for name in report.tables if "solvers-" in name]
    loss_name = report.tables[f"solvers-{titles[0]}"].columns[5]
    sweeps = report.table(
        "sweeps",
        {
            "": "",
            "s a sweep": ".3f",
            "`implicit`": ".3f",
            "times as fast": ".1f",
            loss_name: ".5f",
            "`implicit`, loss": ".5f",
            f"NDCG@{N}": ".4f",
            "`implicit`, NDCG": ".4f",
        },
    )
    for title in titles:
        _, *rows, _ = report.tables[f"solvers-{title}"].rows
        own, rival = rows[-1], report.tables[f"solvers-{title}"].rows[0]
        sweeps.add(
            title.replace("-", ", "),
            own[1],
            rival[1],
            own[2],
            own[5],
            rival[5],
            own[6],
            rival[6],
        )
    top = report.table(
        "top-20",
        {
            f"top {N} of all users, the same items": "",
            "s": ".2f",
            "`implicit`": ".2f",
            "times as fast": ".1f",
        },
    )
    for title in titles:
        rival, *others = report.tables[f"lists-{title}"].rows
        top.add(title.replace("-", ", "), others[-1][1], rival[1], others[-1][2])


def by_us(chosen: TrainingSettings, user_items: sparse.csr_matrix, iterations: int) -> Factors:
    return fit(user_items, chosen, iterations=iterations)


def ndcg(data: shapes.Data, factors: Factors) -> float:
    users = np.flatnonzero(np.diff(data.holdout.indptr))
    listed, _ = top_n(factors.user[users], factors.item, N, seen=data.train[users])
    return float(ndcg_by_user(listed, data.holdout[users], N).mean())


def loss(user_items: sparse.csr_matrix, factors: Factors) -> float:
    chosen = settings(factors.user.shape[1], "cpu", user_items)
    return als_fit.loss(user_items, factors, chosen) / float(user_items.data.sum(dtype=np.float64))


def popularity(user_items: sparse.csr_matrix) -> NDArray[np.float32]:
    """(n_items,): confidence − 1, summed."""
    return np.bincount(
        user_items.indices, user_items.data - 1, minlength=user_items.shape[1]
    ).astype(np.float32)


def same(lists: NDArray[np.int32], rival: NDArray[np.int32], n_items: int) -> float:
    """The share of the places in `lists` whose item is in the rival's list of the same user."""
    users = np.arange(len(lists), dtype=np.int64)[:, None] * n_items
    listed = lists >= 0
    return float(np.isin((users + lists)[listed], (users + rival)[rival >= 0]).mean())
