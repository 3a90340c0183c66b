"""``python benchmarks/together.py FILE``: does what is bought together say what else a real basket holds, and how long it takes.

FILE is the UCI Online Retail II data of 2009/2010 (.parquet, .xlsx or .csv), of which `defaults.uci` takes the sales to known
customers. A basket is what a customer bought on one day; the times of the sales make the same baskets. Learnt until a day and
judged on the baskets of two and more items after it: one of a basket's items is given, and the others are looked for in its list
of 20. *Hit* is whether any is there, *recall* what share of them is, of 20 at most; the mean over a basket's items, then over the
baskets. An item without a list is a miss. Beside it the 20 items with the most customers, without the one given.

Then the seconds for a made shop of 20,000 items and a million purchases in a year.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from defaults import uci
from measure import machine
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.lists.bought_together import Baskets, bought_together, build_baskets
from recsys_ops.settings import BoughtTogetherSettings

N = 20
# learnt until the first day, judged through the second
PERIODS = ((date(2010, 8, 31), date(2010, 9, 30)), (date(2010, 10, 31), date(2010, 12, 9)))
HALF_LIVES, RANKS, SUPPORTS = (90, None), ("weight", "lift"), (3, 10)
ITEMS, BASKETS, CUSTOMERS, GROUPS, LAST = 20_000, 250_000, 100_000, 50, date(2026, 3, 10)


@dataclass(frozen=True)
class Period:
    """learnt : events · items : String series, sorted · last : the last day of `learnt` · later : the baskets to judge by"""

    learnt: pl.DataFrame
    items: pl.Series
    last: date
    later: Baskets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the Online Retail II data")
    events = with_seconds(uci(parser.parse_args().file).events)
    print(machine())
    quality(events)
    speed(with_seconds(made()))


def quality(events: pl.DataFrame) -> None:
    periods = [period(events, *days) for days in PERIODS]
    said = [
        f"{len(found.later.weights):,} baskets of {last + timedelta(days=1)} … {end}"
        for found, (last, end) in zip(periods, PERIODS, strict=True)
    ]
    print(
        f"\n{events.height:,} lines, {events['user_id'].n_unique():,} customers, {len(periods[0].items):,} items\n"
    )
    print(f"| hit / recall@{N} | {' | '.join(said)} |\n|---|{'--:|' * len(said)}")
    row(f"the {N} most popular", periods, popular)
    for half_life, rank, support in itertools.product(HALF_LIVES, RANKS, SUPPORTS):
        settings = BoughtTogetherSettings(
            half_life_days=half_life, rank_by=rank, min_support=support
        )
        row(
            f"{rank}, support {support}, half-life {half_life or '–'}",
            periods,
            partial(listed, settings=settings),
        )


def speed(events: pl.DataFrame) -> None:
    items, settings = texts(ITEMS), BoughtTogetherSettings()
    began = time.perf_counter()
    found = build_baskets(events, items, LAST, settings)
    between = time.perf_counter()
    ids, _ = bought_together(found, N, settings, eligible=np.ones(len(items), dtype=bool))
    ended = time.perf_counter()
    print(
        "\n| purchases | items | baskets of two and more | items with a list | `baskets`, s | `bought_together`, s |"
    )
    print(f"|{'--:|' * 6}")
    sizes = (events.height, len(items), len(found.weights), np.count_nonzero(ids[:, 0] >= 0))
    print(
        f"| {' | '.join(f'{size:,}' for size in sizes)} | {between - began:.2f} | {ended - between:.2f} |"
    )


def with_seconds(events: pl.DataFrame) -> pl.DataFrame:
    """At midnight: all that a customer bought on a day is one basket, and no two days are."""
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
    """(n_items, N): the items with the most customers, without the row's own."""
    customers = period.learnt.group_by("item_id").agg(pl.col("user_id").n_unique())
    counts = period.items.to_frame("item_id").join(
        customers, on="item_id", how="left", maintain_order="left"
    )["user_id"]
    most = np.argsort(-counts.fill_null(0).to_numpy().astype(np.int64), kind="stable")[
        : N + 1
    ].astype(np.int32)
    itself = most == np.arange(len(period.items))[:, None]
    # of the first N + 1 one goes: the row's own, else the last
    itself[:, N] |= ~itself.any(axis=1)
    others: NDArray[np.int32] = np.broadcast_to(most, itself.shape)[~itself].reshape(-1, N)
    return others


def listed(period: Period, settings: BoughtTogetherSettings) -> NDArray[np.int32]:
    found = build_baskets(period.learnt, period.items, period.last, settings)
    ids, _ = bought_together(found, N, settings, eligible=np.ones(len(period.items), dtype=bool))
    return ids


def row(name: str, periods: list[Period], lists_of: Callable[[Period], NDArray[np.int32]]) -> None:
    found = (judged(lists_of(period), period.later) for period in periods)
    print(
        f"| {name} | {' | '.join(f'{hit:.3f} / {recall:.3f}' for hit, recall in found)} |",
        flush=True,
    )


def judged(lists: NDArray[np.int32], later: Baskets) -> tuple[float, float]:
    """Hit and recall. lists : (n_items, N), −1 where a list is shorter"""
    items, sizes = later.items, np.diff(later.items.indptr)
    there = lists >= 0
    item, _ = np.nonzero(there)
    shown = sparse.csr_matrix(
        (np.ones(len(item), dtype=bool), (item, lists[there])), shape=(len(lists), len(lists))
    )
    basket = np.repeat(np.arange(len(sizes)), sizes)
    found = np.asarray(shown[items.indices].multiply(items[basket]).sum(axis=1)).ravel()
    by_basket = 1 / sizes[basket]
    recall = found / np.minimum(sizes[basket] - 1, N)
    return float(np.average(found > 0, weights=by_basket)), float(
        np.average(recall, weights=by_basket)
    )


def made() -> pl.DataFrame:
    """Baskets of four purchases on average, 70 % of them of one group of products, in which a few are bought most."""
    rng = np.random.default_rng(1)
    basket = np.repeat(np.arange(BASKETS), rng.geometric(0.25, BASKETS))
    ranks = np.minimum(rng.zipf(1.3, len(basket)), ITEMS // GROUPS) - 1
    group = np.where(
        rng.random(len(basket)) < 0.7,
        rng.integers(0, GROUPS, BASKETS)[basket],
        rng.integers(0, GROUPS, len(basket)),
    )
    user, age = rng.integers(0, CUSTOMERS, BASKETS)[basket], rng.integers(0, 365, BASKETS)[basket]
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


if __name__ == "__main__":
    main()
