"""Whether the lists of items bought together predict the other items of a real basket.

``--uci FILE`` is the UCI Online Retail II data of 2009/2010 (.parquet, .xlsx or .csv), of which
`defaults.uci` takes the sales to known customers. A basket is what a customer bought on one day;
the times of the sales make the same baskets. Trained until a day and evaluated on the baskets of
two and more items after it: one of a basket's items is given, and the others are looked for in its
list of 20. *Hit* is whether any is in the list, *recall* the share of them that is, of 20 at most;
the mean over a basket's items, then over the baskets. An item without a list is a miss. Beside it
the 20 items with the most customers, without the given one.

Then the seconds for a made shop of 20,000 items and a million purchases in a year.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.harness import Report, Table, timed
from benchmarks.quality.defaults import uci
from recsys_ops.lists.bought_together import Baskets, bought_together, build_baskets
from recsys_ops.settings import BoughtTogetherSettings

N = 20
# trained until the first day, evaluated until the second
PERIODS = ((date(2010, 8, 31), date(2010, 9, 30)), (date(2010, 10, 31), date(2010, 12, 9)))
HALF_LIVES, RANKS, SUPPORTS = (90, None), ("weight", "lift"), (3, 10)
ITEMS, CUSTOMERS, GROUPS, LAST = 20_000, 100_000, 50, date(2026, 3, 10)


@dataclass(frozen=True)
class Period:
    """Training events and later baskets.

    items : String, sorted · last : the last day of `train` · later : the baskets to evaluate on

    """

    train: pl.DataFrame
    items: pl.Series
    last: date
    later: Baskets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uci", type=Path, help="the Online Retail II data")


def run(options: argparse.Namespace, report: Report) -> None:
    if options.uci:
        quality(with_seconds(uci(options.uci).events), report)
    speed(with_seconds(made(25_000 if options.quick else 250_000)), report)


def quality(events: pl.DataFrame, report: Report) -> None:
    periods = [period(events, *days) for days in PERIODS]
    headings = [
        f"{len(each.later.weights):,} baskets of {last + timedelta(days=1)} … {end}"
        for each, (last, end) in zip(periods, PERIODS, strict=True)
    ]
    table = report.table(
        "bought-together",
        dict.fromkeys([f"hit / recall@{N}", *headings], ""),
        f"{events.height:,} lines, {events['user_id'].n_unique():,} customers, "
        f"{len(periods[0].items):,} items",
    )
    add_row(table, f"the {N} most popular", periods, popular)
    for half_life, rank, support in itertools.product(HALF_LIVES, RANKS, SUPPORTS):
        settings = BoughtTogetherSettings(
            half_life_days=half_life, rank_by=rank, min_support=support
        )
        name = f"{rank}, support {support}, half-life {half_life or '–'}"
        add_row(table, name, periods, partial(listed, settings=settings))


def speed(events: pl.DataFrame, report: Report) -> None:
    items, settings = texts(ITEMS), BoughtTogetherSettings()
    baskets, basket_cost = timed(build_baskets, events, items, LAST, settings)
    eligible = np.ones(len(items), dtype=bool)
    (ids, _), list_cost = timed(bought_together, baskets, N, settings, eligible=eligible)
    table = report.table(
        "bought-together, speed",
        {
            "purchases": ",",
            "items": ",",
            "baskets of two and more": ",",
            "items with a list": ",",
            "baskets, s": ".2f",
            "lists, s": ".2f",
        },
    )
    sizes = (events.height, len(items), len(baskets.weights), np.count_nonzero(ids[:, 0] >= 0))
    table.add(*map(int, sizes), basket_cost.seconds, list_cost.seconds)


def with_seconds(events: pl.DataFrame) -> pl.DataFrame:
    """All events at midnight: what a customer bought on a day is one basket."""
    return events.with_columns(second=pl.col("day").dt.epoch("s"))


def period(events: pl.DataFrame, last: date, end: date) -> Period:
    day, items = pl.col("day"), events["item_id"].unique().sort()
    later = build_baskets(
        events.filter(day > last, day <= end),
        items,
        end,
        BoughtTogetherSettings(half_life_days=None),
    )
    return Period(events.filter(day <= last), items, last, later)


def popular(period: Period) -> NDArray[np.int32]:
    """(n_items, N): the items with the most customers, without the item of the row."""
    customers = period.train.group_by("item_id").agg(pl.col("user_id").n_unique())
    counts = period.items.to_frame("item_id").join(
        customers, on="item_id", how="left", maintain_order="left"
    )["user_id"]
    most = np.argsort(-counts.fill_null(0).to_numpy().astype(np.int64), kind="stable")[
        : N + 1
    ].astype(np.int32)
    itself = most == np.arange(len(period.items))[:, None]
    # drop one of the first N + 1: the item of the row, else the last one
    itself[:, N] |= ~itself.any(axis=1)
    others: NDArray[np.int32] = np.broadcast_to(most, itself.shape)[~itself].reshape(-1, N)
    return others


def listed(period: Period, settings: BoughtTogetherSettings) -> NDArray[np.int32]:
    baskets = build_baskets(period.train, period.items, period.last, settings)
    ids, _ = bought_together(baskets, N, settings, eligible=np.ones(len(period.items), dtype=bool))
    return ids


def add_row(
    table: Table,
    name: str,
    periods: list[Period],
    lists_of: Callable[[Period], NDArray[np.int32]],
) -> None:
    figures = (evaluate(lists_of(period), period.later) for period in periods)
    table.add(name, *(f"{hit:.3f} / {recall:.3f}" for hit, recall in figures))


def evaluate(lists: NDArray[np.int32], later: Baskets) -> tuple[float, float]:
    """Hit and recall. lists : (n_items, N), −1 where a list is shorter"""
    items, sizes = later.items, np.diff(later.items.indptr)
    filled = lists >= 0
    item, _ = np.nonzero(filled)
    shown = sparse.csr_matrix(
        (np.ones(len(item), dtype=bool), (item, lists[filled])), shape=(len(lists), len(lists))
    )
    basket = np.repeat(np.arange(len(sizes)), sizes)
    hits = np.asarray(shown[items.indices].multiply(items[basket]).sum(axis=1)).ravel()
    by_basket = 1 / sizes[basket]
    recall = hits / np.minimum(sizes[basket] - 1, N)
    return float(np.average(hits > 0, weights=by_basket)), float(
        np.average(recall, weights=by_basket)
    )


def made(baskets: int) -> pl.DataFrame:
    """Baskets of four purchases on average, 70 % of them of one group of items.

    In each group a few items are bought most.
    """
    rng = np.random.default_rng(1)
    basket = np.repeat(np.arange(baskets), rng.geometric(0.25, baskets))
    ranks = np.minimum(rng.zipf(1.3, len(basket)), ITEMS // GROUPS) - 1
    group = np.where(
        rng.random(len(basket)) < 0.7,
        rng.integers(0, GROUPS, baskets)[basket],
        rng.integers(0, GROUPS, len(basket)),
    )
    user, age = rng.integers(0, CUSTOMERS, baskets)[basket], rng.integers(0, 365, baskets)[basket]
    item = group * (ITEMS // GROUPS) + ranks
    day = pl.Series(np.datetime64(LAST) - age.astype("timedelta64[D]")).cast(pl.Date)
    return pl.DataFrame(
        {
            "day": day,
            "user_id": _ids(user, CUSTOMERS),
            "item_id": _ids(item, ITEMS),
            "event_type": "purchase",
        }
    )


def _ids(numbers: NDArray[np.int64], n: int) -> pl.Series:
    return pl.Series(numbers).cast(pl.String).cast(pl.Enum(texts(n)))


def texts(n: int) -> pl.Series:
    return pl.Series(range(n)).cast(pl.String).sort()
