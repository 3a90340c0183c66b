"""Thirty days of warm starts beside a cold fit of each day.

On the demo shop, as the worker does it: each day a fit on the days before from the factors that are
served, evaluated on the day, then the refit through it, from which the next day starts. No day is
fitted cold, as if `training.cold_every_days` were infinite. Beside it a cold fit on the same rows.
If many small steps led to worse factors, the later days would show it.
"""

import argparse
from datetime import date, timedelta

import numpy as np
import polars as pl

from benchmarks.harness import Report, Table, timed
from benchmarks.quality.defaults import OPENS, SEED, SIZES
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.warm_start import match, warm_start
from recsys_ops.demo import shop, visits
from recsys_ops.evaluation.compare import compare_models
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import evaluation_lists
from recsys_ops.settings import load_settings

HISTORY = 28


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--warm-days", type=int, default=30, help="days with a warm start")
    parser.add_argument("--size", choices=SIZES, default="demo, medium")


def run(options: argparse.Namespace, report: Report) -> None:
    size, days = ("demo, small", 3) if options.quick else (options.size, options.warm_days)
    opened = shop.Shop(SIZES[size], OPENS, SEED)
    events = pl.concat(people(opened, OPENS + timedelta(days=n)) for n in range(HISTORY + days))
    rows, served = [], None
    for day in (OPENS + timedelta(days=HISTORY + n) for n in range(days)):
        figures, served = fit_day(events.filter(pl.col("day") <= day), day, served)
        rows.append(figures)
    by_day = pl.DataFrame(rows)
    table = report.table(
        "warm",
        {
            "days": "",
            "NDCG@20 warm": ".4f",
            "cold": ".4f",
            "warm / cold (95 % over the days)": "",
            "popularity": ".4f",
            "seconds warm": ".2f",
            "seconds cold": ".2f",
        },
        f"{size}: {opened.size}",
    )
    for start in range(0, days, 10):
        add_row(table, f"{start + 1} to {min(start + 10, days)}", by_day[start : start + 10])
    add_row(table, "all", by_day)


def people(opened: shop.Shop, day: date) -> pl.DataFrame:
    customers = visits.visits(opened, day).filter(label="human")
    return customers.select(
        day=pl.lit(day), user_id="user_id", item_id="item_id", event_type="action"
    )


def fit_day(
    events: pl.DataFrame, day: date, served: tuple[Interactions, Factors] | None
) -> tuple[dict[str, float], tuple[Interactions, Factors]]:
    settings = load_settings()
    training, evaluation = settings.training, settings.evaluation
    data = build_interactions(events, day, settings.confidence, evaluation)
    start, sweeps = None, training.iterations
    if served is not None:
        before, factors = served
        matched = match(factors, before.users, before.items, data.users, data.items)
        start = warm_start(matched, training)
        sweeps = training.warm_iterations
    warm, warm_cost = timed(fit, data.train, training, iterations=sweeps, factors0=start)
    cold, cold_cost = timed(fit, data.train, training, iterations=training.iterations)
    figures = {"warm_s": warm_cost.seconds, "cold_s": cold_cost.seconds}
    for name, factors in (("warm", warm), ("cold", cold)):
        lists = evaluation_lists(
            data.train,
            data.holdout,
            factors,
            None,
            max(evaluation.cutoffs),
            evaluation.exclude_seen,
        )
        metrics = compare_models(lists, cutoffs=evaluation.cutoffs, seed=1)
        figures |= {
            name: metrics["challenger"]["ndcg@20"],
            "popularity": metrics["popularity"]["ndcg@20"],
        }
    refitted = fit(data.full, training, iterations=training.refit_iterations, factors0=warm)
    return figures, (data, refitted)


def add_row(table: Table, name: str, rows: pl.DataFrame) -> None:
    ratio = rows["warm"].mean() / rows["cold"].mean()
    drawn = np.random.default_rng(1).integers(0, rows.height, (1000, rows.height))
    warm, cold = (rows[column].to_numpy()[drawn].mean(axis=1) for column in ("warm", "cold"))
    low, high = np.quantile(warm / cold, [0.025, 0.975])
    means = {column: rows[column].mean() for column in rows.columns}
    table.add(
        name,
        means["warm"],
        means["cold"],
        f"{ratio:.4f} ({low:.4f} to {high:.4f})",
        means["popularity"],
        means["warm_s"],
        means["cold_s"],
    )
