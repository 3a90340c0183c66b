"""``python benchmarks/defaults.py [--uci FILE]``: how the defaults of training were chosen, and what they are worth.

Demo shops of three sizes (true customers' events alone, five weeks) and, where the file is given, the UCI Online Retail II sales
of 2009/2010 (.parquet, .xlsx or .csv). Every setting of the grid is fitted on the days before each *tuning* day, scored on that
day, as `recsys_retrain` does. A setting's figure is the mean over the shops of its NDCG@20 over the best one's of that shop, so
that no shop counts more than another. The *evaluation* days come later and choose nothing: the defaults of `include/recsys.yaml`
are scored on them beside popularity.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from measure import machine

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
SEED = 11  # not the demo's
ALPHAS, REGULARIZATIONS, EXPONENTS, FACTORS = (
    (4, 8, 16, 32),
    (0.03, 0.06, 0.12),
    (0.0, 1.0),
    (32, 64, 128),
)
READERS = {".parquet": pd.read_parquet, ".xlsx": pd.read_excel, ".csv": pd.read_csv}


@dataclass(frozen=True)
class Source:
    """events : day, user_id, item_id, event_type"""

    name: str
    events: pl.DataFrame
    tuning: list[date]
    evaluation: list[date]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uci", type=Path, help="the Online Retail II data")
    parser.add_argument("--defaults-only", action="store_true", help="leave out the grid")
    options = parser.parse_args()
    began = time.perf_counter()
    print(machine())
    sources = [demo(name, size) for name, size in SIZES.items()] + (
        [uci(options.uci)] if options.uci else []
    )
    training = load_settings().training
    if not options.defaults_only:
        search(sources, training)
    print("\n**Evaluation days**: the defaults\n")
    print(
        "| | users | items | cells | days | customers a day | NDCG@20 | popularity | days with the bound above 0 |\n|---|"
        + "--:|" * 8
    )
    for source in sources:
        print(f"| {source.name} | {' | '.join(evaluated(source, training))} |", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")


def search(sources: list[Source], training: TrainingSettings) -> None:
    table = [
        (*trial, *tuned(sources, training, trial))
        for trial in itertools.product(ALPHAS, REGULARIZATIONS, EXPONENTS, (64,))
    ]
    best = max(table, key=overall(table))
    table += [
        (*best[:3], factors, *tuned(sources, training, (*best[:3], factors)))
        for factors in FACTORS
        if factors != 64
    ]
    names = [source.name for source in sources]
    print("\n**Tuning days**: NDCG@20, best settings first\n")
    print(
        f"| alpha | regularization | exponent | factors | mean of shares | {' | '.join(names)} |\n|{'--:|' * (5 + len(names))}"
    )
    share = overall(table)
    for row in sorted(table, key=share, reverse=True)[:12]:
        print(
            f"| {row[0]} | {row[1]} | {row[2]} | {row[3]} | {share(row):.3f} | {' | '.join(f'{x:.4f}' for x in row[4:])} |"
        )


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
    """Sales to known customers; a line is a purchase."""
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
    """NDCG@20 of each source over its tuning days."""
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
        yield float(np.mean([found["challenger"]["ndcg@20"] for found in metrics]))


def overall(table: list[tuple]) -> object:
    best = np.array([row[4:] for row in table]).max(axis=0)
    return lambda row: float((np.array(row[4:]) / best).mean())


def evaluated(source: Source, training: TrainingSettings) -> Iterator[str]:
    confidence = load_settings().confidence
    metrics = [scored(source, day, training, confidence.alpha) for day in source.evaluation]
    data = built(source, source.evaluation[-1])
    yield from (f"{size:,}" for size in (*data.full.shape, data.full.nnz, len(metrics)))
    yield f"{np.mean([found['users'] for found in metrics]):,.0f}"
    yield from (
        f"{np.mean([found[name]['ndcg@20'] for found in metrics]):.4f}"
        for name in ("challenger", "popularity")
    )
    yield f"{sum(found['bootstrap']['popularity']['lower'] > 0 for found in metrics)} of {len(metrics)}"


_BUILT: dict[tuple[str, date], Interactions] = {}


def built(source: Source, day: date) -> Interactions:
    """With alpha 1: confidence − 1 is in proportion to alpha."""
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


if __name__ == "__main__":
    main()
