"""``python benchmarks/warm.py [--days 30]``: models that go on from yesterday's factors beside models fitted anew every day.

On the demo shop, as the worker does it: each day a fit on the days before from the factors served yesterday, judged on the day,
then the refit through it, which tomorrow starts from. No day is fitted cold, as if `training.cold_every_days` were endless.
Beside it a cold fit on the same rows. If the sum of many small steps led astray, the later days would show it.
"""

import argparse
import time
from datetime import date, timedelta

import numpy as np
import polars as pl
from defaults import OPENS, SEED, SIZES
from measure import machine

from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.warm_start import match, warm_start
from recsys_ops.demo import shop, visits
from recsys_ops.evaluation.compare import compare_models
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import evaluation_lists
from recsys_ops.settings import load_settings

HISTORY = 28


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=30, help="days that start from the day before")
    parser.add_argument("--size", choices=SIZES, default="demo, medium")
    options = parser.parse_args()
    opened = shop.Shop(SIZES[options.size], OPENS, SEED)
    events = pl.concat(
        people(opened, OPENS + timedelta(days=n)) for n in range(HISTORY + options.days)
    )
    print(f"{machine()}\n\n{options.size}: {opened.size}\n")
    rows, served = [], None
    for day in (OPENS + timedelta(days=HISTORY + n) for n in range(options.days)):
        found, served = run(events.filter(pl.col("day") <= day), day, served)
        rows.append(found)
    table = pl.DataFrame(rows)
    print(
        "| days | NDCG@20 warm | cold | warm / cold | popularity | seconds warm | cold |\n|---|"
        + "--:|" * 6
    )
    for start in range(0, options.days, 10):
        print(line(f"{start + 1} to {min(start + 10, options.days)}", table[start : start + 10]))
    print(line("all", table))


def people(opened: shop.Shop, day: date) -> pl.DataFrame:
    customers = visits.visits(opened, day).filter(label="human")
    return customers.select(
        day=pl.lit(day), user_id="user_id", item_id="item_id", event_type="action"
    )


def run(
    events: pl.DataFrame, day: date, served: tuple[Interactions, Factors] | None
) -> tuple[dict[str, float], tuple[Interactions, Factors]]:
    settings = load_settings()
    training, evaluation = settings.training, settings.evaluation
    data = build_interactions(events, day, settings.confidence, evaluation)
    start, sweeps = None, training.iterations
    if served is not None:
        before, theirs = served
        start = warm_start(
            match(theirs, before.users, before.items, data.users, data.items), training
        )
        sweeps = training.warm_iterations
    began = time.perf_counter()
    warm = fit(data.train, training, iterations=sweeps, factors0=start)
    between = time.perf_counter()
    cold = fit(data.train, training, iterations=training.iterations)
    ended = time.perf_counter()
    found = {"warm_s": between - began, "cold_s": ended - between}
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
        found |= {
            name: metrics["challenger"]["ndcg@20"],
            "popularity": metrics["popularity"]["ndcg@20"],
        }
    refitted = fit(data.full, training, iterations=training.refit_iterations, factors0=warm)
    return found, (data, refitted)


def line(name: str, rows: pl.DataFrame) -> str:
    ratio = rows["warm"].mean() / rows["cold"].mean()
    ratios = np.random.default_rng(1).integers(0, rows.height, (1000, rows.height))
    drawn = rows["warm"].to_numpy()[ratios].mean(axis=1) / rows["cold"].to_numpy()[ratios].mean(
        axis=1
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    means = (f"{rows[column].mean():.4f}" for column in ("warm", "cold"))
    seconds = (f"{rows[column].mean():.2f}" for column in ("warm_s", "cold_s"))
    spread = f"{ratio:.4f} ({low:.4f} to {high:.4f})"
    return f"| {name} | {' | '.join(means)} | {spread} | {rows['popularity'].mean():.4f} | {' | '.join(seconds)} |"


if __name__ == "__main__":
    main()
