"""How the defaults of training were chosen, and how good they are.

Demo shops of three sizes (only the events of true customers, five weeks) and, with ``--uci FILE``,
the UCI Online Retail II sales of 2009/2010 (.parquet, .xlsx or .csv). Each setting of the grid is
fitted on the days before each *tuning* day and evaluated on that day, as `recsys_retrain` does. The
figure of a setting is its NDCG@20 as a share of the best one's, the mean over the shops: each shop
counts the same. The *evaluation* days come later and choose nothing: there the defaults of
`include/recsys.yaml` are compared with popularity.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.harness import Cell, Report
from recsys_ops.als.fit import fit
from recsys_ops.demo import shop, visits
from recsys_ops.evaluation.compare import Evaluation, compare_models
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import evaluation_lists
from recsys_ops.settings import TrainingSettings, load_settings

OPENS = date(2026, 5, 1)
SIZES = {
    "demo, small": shop.ShopSize(2_500, 600, 8_500),
    "demo, medium": shop.ShopSize(10_000, 2_000, 40_000),
    "demo, large": shop.ShopSize(40_000, 6_000, 160_000),
}
SEED = 11  # another than the demo's
ALPHAS = (4, 8, 16, 32)
REGULARIZATIONS = (0.03, 0.06, 0.12)
EXPONENTS = (0.0, 1.0)
FACTORS = (32, 64, 128)
READERS = {".parquet": pd.read_parquet, ".xlsx": pd.read_excel, ".csv": pd.read_csv}


@dataclass(frozen=True)
class Source:
    """events : day, user_id, item_id, event_type"""

    name: str
    events: pl.DataFrame
    tuning: list[date]
    evaluation: list[date]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uci", type=Path, help="the Online Retail II data")
    parser.add_argument("--defaults-only", action="store_true", help="without the grid")


def run(options: argparse.Namespace, report: Report) -> None:
    sizes = [*SIZES.items()][: 1 if options.quick else None]
    sources = [demo(name, size) for name, size in sizes]
    if options.uci:
        sources.append(uci(options.uci))
    training = load_settings().training
    if not options.defaults_only and not options.quick:
        search(sources, training, report)
    table = report.table(
        "defaults",
        {
            "": "",
            "users": ",",
            "items": ",",
            "cells": ",",
            "days": ",",
            "customers a day": ",.0f",
            "NDCG@20": ".4f",
            "popularity": ".4f",
            "days with the bound above 0": "",
        },
        "Evaluation days: the defaults",
    )
    for source in sources:
        table.add(source.name, *evaluated(source, training))


def search(sources: list[Source], training: TrainingSettings, report: Report) -> None:
    trials = [
        (*trial, *tuned(sources, training, trial))
        for trial in itertools.product(ALPHAS, REGULARIZATIONS, EXPONENTS, (64,))
    ]
    best = max(trials, key=mean_share(trials))
    trials += [
        (*best[:3], factors, *tuned(sources, training, (*best[:3], factors)))
        for factors in FACTORS
        if factors != 64
    ]
    settings = ("alpha", "regularization", "exponent", "factors")
    table = report.table(
        "tuning",
        {
            **dict.fromkeys(settings, "g"),
            "mean of shares": ".3f",
            **{source.name: ".4f" for source in sources},
        },
        "Tuning days: NDCG@20, best settings first",
    )
    share = mean_share(trials)
    for trial in sorted(trials, key=share, reverse=True)[:12]:
        table.add(*trial[:4], share(trial), *trial[4:])


def demo(name: str, size: shop.ShopSize) -> Source:
    opened = shop.Shop(size, OPENS, SEED)
    days = [OPENS + timedelta(days=n) for n in range(35)]
    events = pl.concat(
        visits.visits(opened, day)
        .filter(label="human")
        .select(day=pl.lit(day), user_id="user_id", item_id="item_id", event_type="action")
        for day in days
    )
    return Source(name, events, days[22:27:2], days[28:35])


def uci(file: Path) -> Source:
    """Sales to customers with an id; a line is a purchase."""
    lines = pl.from_pandas(
        READERS[file.suffix](file).astype(
            {"Invoice": str, "StockCode": str, "InvoiceDate": "datetime64[us]"}
        )
    )
    sold = lines.filter(
        pl.col("Customer ID").is_not_null(),
        pl.col("Quantity") > 0,
        ~pl.col("Invoice").str.starts_with("C"),
    )
    events = sold.select(
        day=pl.col("InvoiceDate").dt.date(),
        user_id=pl.col("Customer ID").cast(pl.Int64).cast(pl.String),
        item_id="StockCode",
        event_type=pl.lit("purchase"),
    )
    weekdays = [date(2010, 10, 5) + timedelta(days=7 * n) for n in range(4)]
    return Source(
        "UCI", events, weekdays, [date(2010, 11, n) for n in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12)]
    )


def tuned(
    sources: list[Source], training: TrainingSettings, trial: tuple[float, float, float, int]
) -> Iterator[float]:
    """The mean NDCG@20 of each source over its tuning days."""
    alpha, regularization, exponent, factors = trial
    tried = training.model_copy(
        update={
            "regularization": regularization,
            "regularization_exponent": exponent,
            "factors": factors,
        }
    )
    for source in sources:
        metrics = [scored(source, day, tried, alpha) for day in source.tuning]
        yield float(np.mean([of_day["challenger"]["ndcg@20"] for of_day in metrics]))


def mean_share(trials: list[tuple[float, ...]]) -> Callable[[tuple[float, ...]], float]:
    """A trial's NDCG@20 as a share of the best one's, the mean over the sources."""
    best = np.array([trial[4:] for trial in trials]).max(axis=0)
    return lambda trial: float((np.array(trial[4:]) / best).mean())


def evaluated(source: Source, training: TrainingSettings) -> Iterator[Cell]:
    confidence = load_settings().confidence
    metrics = [scored(source, day, training, confidence.alpha) for day in source.evaluation]
    data = built(source, source.evaluation[-1])
    yield from (*data.full.shape, data.full.nnz, len(metrics))
    yield float(np.mean([of_day["users"] for of_day in metrics]))
    for model in ("challenger", "popularity"):
        yield float(np.mean([of_day[model]["ndcg@20"] for of_day in metrics]))
    above = sum(of_day["bootstrap"]["popularity"]["lower"] > 0 for of_day in metrics)
    yield f"{above} of {len(metrics)}"


_BUILT: dict[tuple[str, date], Interactions] = {}


def built(source: Source, day: date) -> Interactions:
    """The matrices with alpha 1: confidence − 1 is proportional to alpha."""
    if (source.name, day) not in _BUILT:
        settings = load_settings()
        confidence = settings.confidence.model_copy(update={"alpha": 1.0})
        events = source.events.filter(pl.col("day") <= day)
        _BUILT[source.name, day] = build_interactions(events, day, confidence, settings.evaluation)
    return _BUILT[source.name, day]


def scored(source: Source, day: date, training: TrainingSettings, alpha: float) -> dict:
    data, evaluation = built(source, day), load_settings().evaluation
    train = data.train.copy()
    train.data = (1 + alpha * (train.data - 1)).astype(np.float32)
    fitted = fit(train, training, iterations=training.iterations)
    lists: Evaluation = evaluation_lists(
        train, data.holdout, fitted, None, max(evaluation.cutoffs), evaluation.exclude_seen
    )
    return compare_models(lists, cutoffs=evaluation.cutoffs, seed=1)
