"""How often the gate refuses good models, and how often it refuses bad ones.

Demo shops, each with its own seed: four weeks of history, then days as `recsys_retrain` has them.
Each day a challenger starts from yesterday's factors, is evaluated beside champion, reference and
popularity, refitted through the day, and checked by the gate with the settings of
`include/recsys.yaml`. A blessed challenger is tomorrow's champion. Beside it the same day with
one thing wrong, which never goes live. The filters do not run: the history holds the customers'
rows, and the robots' share is that of the shop's robots. The table says how many days were
refused, and by which rules. ``--uci FILE``: only how many days of the UCI Online Retail II sales,
which are all real, the data guards would refuse.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Report
from benchmarks.quality.defaults import uci
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.warm_start import Matched, match, warm_start
from recsys_ops.demo import robots, shop, visits
from recsys_ops.evaluation.compare import compare_models
from recsys_ops.evaluation.gate import RULES, Verdict, decide
from recsys_ops.interactions.day_profile import DayProfile, profile_day
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import evaluation_lists, served_lists
from recsys_ops.settings import load_settings

OPENS = date(2026, 1, 1)
HISTORY = 28
SIZES = {"small": shop.ShopSize(2_500, 600, 8_500), "middle": shop.ShopSize(6_000, 1_200, 24_000)}
GOOD = ("as every day", "fitted from scratch, another seed")
BAD = (
    "half of the history lost",
    "item ids shifted by one",
    "one iteration only",
    "30 % robots' rows, filters off",
    "a matrix without the last week",
    "the day's rows doubled",
)


@dataclass(frozen=True)
class Model:
    """A live model: its data, its factors, and the profile of its day."""

    name: str
    data: Interactions
    factors: Factors
    profile: DayProfile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--shops", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--uci", type=Path, help="the Online Retail II data")


def run(options: argparse.Namespace, report: Report) -> None:
    if options.quick:
        options.days, options.shops, options.size = 2, 1, "small"
    if options.uci:
        guards(uci(options.uci).events, report)
        return
    size = SIZES[options.size]
    with ProcessPoolExecutor(options.processes) as pool:
        seeds = range(1, options.shops + 1)
        shops = list(pool.map(partial(verdicts_of_shop, size, options.days), seeds))
    verdicts = [verdict for of_shop in shops for verdict in of_shop]
    users = np.mean([users for name, _, users in verdicts if name == GOOD[0]])
    table = report.table(
        "days",
        {"the day's model": "", "days": ",", "refused": ".1%", "by": ""},
        f"{size}, {options.shops} shops, {options.days} days each, "
        f"{users:,.0f} users evaluated a day",
    )
    for name in GOOD + BAD:
        chosen = [verdict for model, verdict, _ in verdicts if model == name]
        failed = [rule.name for verdict in chosen for rule in verdict.rules if not rule.passed]
        rules = ", ".join(f"{rule} {count}" for rule, count in Counter(failed).most_common())
        refused = sum(not verdict.blessed for verdict in chosen) / len(chosen)
        table.add(name, len(chosen), refused, rules)


def guards(events: pl.DataFrame, report: Report) -> None:
    """The data guards on each day that has four weeks before it."""
    gate = load_settings().gate
    days = events["day"].unique().sort().to_list()
    profiles = [
        profile_day(events, day, day - timedelta(days=364), {})
        for day in days
        if day >= days[0] + timedelta(days=28)
    ]
    names = ("rows", "users", "items", "rows_per_user", "repeats", "gap")
    refused = np.array(
        [
            [
                not RULES[name](name, {"data": profile.model_dump()}, gate).passed
                for profile in profiles
            ]
            for name in names
        ]
    )
    table = report.table("guards", {"rule": "", "refused": ","}, f"{len(profiles)} days")
    for name, by_day in zip((*names, "any of them"), (*refused, refused.any(axis=0)), strict=True):
        table.add(name, int(by_day.sum()))


def verdicts_of_shop(size: shop.ShopSize, days: int, seed: int) -> list[tuple[str, Verdict, int]]:
    """The verdicts of a shop's days: model's name, verdict, number of users evaluated."""
    opened, settings = shop.Shop(size, OPENS, seed), load_settings()
    confidence = settings.confidence.model_copy(update={"window_days": 60})
    settings = settings.model_copy(update={"confidence": confidence})
    events = pl.concat(people(opened, OPENS + timedelta(days=n)) for n in range(HISTORY + days))
    shares = {
        day: rejected(opened, day)
        for day in (OPENS + timedelta(days=n) for n in range(HISTORY + days))
    }
    live: list[Model] = []
    verdicts = []
    for day in (OPENS + timedelta(days=HISTORY + n - 1) for n in range(days + 1)):
        of_day = list(
            models(events.filter(pl.col("day") <= day), opened, day, live, shares, settings)
        )
        if live:
            verdicts += [(name, verdict, users) for name, _, verdict, users in of_day]
        if not live or of_day[0][2].blessed:
            live.append(of_day[0][1])
    return verdicts


def people(opened: shop.Shop, day: date) -> pl.DataFrame:
    return visits.visits(opened, day).filter(label="human").select(
        day=pl.lit(day), user_id="user_id", item_id="item_id", event_type="action"
    )  # fmt: skip


def robots_of(opened: shop.Shop, day: date) -> pl.DataFrame:
    rows = pl.concat([robots.crawlers(opened, day), robots.scrapers(opened, day)])
    return rows.select(day=pl.lit(day), user_id="user_id", item_id="item_id", event_type="action")


def rejected(opened: shop.Shop, day: date) -> dict[str, float]:
    robots_rows, people_rows = robots_of(opened, day).height, people(opened, day).height
    return {"quarantine_share": 0.02, "bot_share": robots_rows / (robots_rows + people_rows)}


def models(
    events: pl.DataFrame,
    opened: shop.Shop,
    day: date,
    live: list[Model],
    shares: dict,
    settings: object,
) -> Iterator[tuple[str, Model, Verdict, int]]:
    """The day's model, then the same day with one thing wrong."""
    champion = live[-1] if live else None
    old = [model for model in live if model.name <= str(day - timedelta(days=30))]
    train = partial(
        train_day,
        day=day,
        champion=champion,
        reference=old[-1] if old else None,
        shares=shares,
        settings=settings,
    )
    yield GOOD[0], *train(events)
    if champion is None:
        return
    training = settings.training
    cold = training.model_copy(update={"seed": 1000 + day.toordinal()})
    yield GOOD[1], *train(events, training=cold, cold=True)
    first = events["day"].min()
    middle = first + (day - first) // 2
    yield BAD[0], *train(events.filter(pl.col("day") > middle))
    yield BAD[1], *train(events, shifted=True)
    yield BAD[2], *train(events, training=training.model_copy(update={"iterations": 1}), cold=True)
    today = events.filter(pl.col("day") == day)
    drawn = robots_of(opened, day).sample(
        int(today.height * 0.3 / 0.7), with_replacement=True, seed=1
    )
    yield (
        BAD[3],
        *train(pl.concat([events, drawn]), shares=shares | {day: shares[day] | {"bot_share": 0.0}}),
    )
    yield (
        BAD[4],
        *train(events.filter((pl.col("day") < day - timedelta(days=7)) | (pl.col("day") == day))),
    )
    yield BAD[5], *train(pl.concat([events, today]))


def train_day(
    events: pl.DataFrame,
    *,
    day: date,
    champion: Model | None,
    reference: Model | None,
    shares: dict,
    settings: object,
    training: object = None,
    cold: bool = False,
    shifted: bool = False,
) -> tuple[Model, Verdict, int]:
    training, evaluation, gate = training or settings.training, settings.evaluation, settings.gate
    data = build_interactions(events, day, settings.confidence, evaluation)
    profile = profile_day(events, day, first_window_day(day, settings.confidence), shares)
    champion_factors, older = (carried(model, data) for model in (champion, reference))
    start = warm_start(champion_factors, training) if champion_factors and not cold else None
    fitted = fit(
        data.train,
        training,
        iterations=training.warm_iterations if start else training.iterations,
        factors0=start,
    )
    if shifted:
        fitted = replace(fitted, item=np.roll(fitted.item, 1, axis=0))
    k = max(evaluation.cutoffs)
    lists = evaluation_lists(
        data.train,
        data.holdout,
        fitted,
        champion_factors,
        k,
        evaluation.exclude_seen,
        reference=older,
        buyers=data.buyers,
    )
    served = fit(data.full, training, iterations=training.refit_iterations, factors0=fitted)
    again = served_lists(data.train, lists.users, fitted, served, k, evaluation.exclude_seen)
    figures = compare_models(
        replace(lists, served=again),
        cutoffs=evaluation.cutoffs,
        seed=training.seed,
    )
    verdict = decide(
        {
            "protocol": "next_day",
            "champion_version": champion and champion.name,
            "reference_version": reference and reference.name,
            "factors_finite": bool(
                np.isfinite(served.user).all() and np.isfinite(served.item).all()
            ),
            "ids_match": True,
            "data": profile.model_dump(),
            "champion_data": champion and champion.profile.model_dump(),
            **figures,
        },
        gate,
    )
    return Model(str(day), data, served, profile), verdict, figures["users"]


def carried(model: Model | None, data: Interactions) -> Matched | None:
    return model and match(
        model.factors, model.data.users, model.data.items, data.users, data.items
    )
