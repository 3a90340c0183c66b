"""How often the gate refuses good models, and how often it refuses bad ones.

Demo shops, each with its own seed: four weeks of history, then days as `recsys_retrain` has them.
Each day a challenger starts from yesterday's factors, is evaluated beside champion, reference and
popularity, refitted through the day, makes the lists that would be served from the day's catalogue,
and is checked by the gate with the settings of `include/recsys.yaml`. A blessed challenger is
tomorrow's champion. In the last fortnight the shop has a clearance sale: every day 3 % of the items
are sold out for good. Beside it the same day with one thing wrong, which never goes live. The
filters do not run: the history holds the customers' rows, and the robots' share is that of the
shop's robots. The table says how many days were refused, and by which rules. ``--uci FILE``: only
how many days of the UCI Online Retail II sales, which are all real, the data guards would refuse.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

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
from recsys_ops.evaluation.list_figures import KINDS, list_figures, lost_share
from recsys_ops.interactions.day_profile import CatalogueProfile, DayProfile, profile_day
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import evaluation_lists, served_lists
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.models.spec import JobInputs, JobSpec
from recsys_ops.settings import ListsSettings, Settings, TrainingSettings, load_settings
from recsys_ops.source.catalogue import eligible_items, unmanaged_share
from recsys_ops.worker.training_run import TrainingRun

OPENS = date(2026, 1, 1)
HISTORY = 28
SIZES = {"small": shop.ShopSize(2_500, 600, 8_500), "middle": shop.ShopSize(6_000, 1_200, 24_000)}
SALE_DAYS = 14
GOOD = (
    "as every day",
    "in a clearance sale",
    "fitted from scratch, another seed",
    "a category excluded by the owner",
    "a tenth of the items sold out overnight",
)
BAD = (
    "half of the history lost",
    "item ids shifted by one",
    "one iteration only",
    "30 % robots' rows, filters off",
    "a matrix without the last week",
    "the day's rows doubled",
    "three days of last week never read",
    "a category's items renamed",
    "the catalogue's ids as 1000.0",
    "half of the catalogue unpublished",
    "the stock feed failed: 57 of 60 items sold out",
    "the stock feed failed: no figure for half",
    "the catalogue without categories",
)
CATEGORY = "knitwear"


@dataclass(frozen=True)
class Model:
    """A live model: its data, factors and lists, and the profile of its day."""

    name: str
    data: Interactions
    factors: Factors
    profile: DayProfile
    lists: ListsSettings
    list_figures: dict[str, Any]
    recommendations: pl.Series
    users: int


@dataclass(frozen=True)
class Trained:
    """What a day's training makes, before the catalogue has a part in it."""

    events: pl.DataFrame
    data: Interactions
    served: Factors
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Night:
    """What the models of a day have in common.

    sale : the first day of the clearance sale
    """

    opened: shop.Shop
    day: date
    sale: date
    champion: Model | None
    reference: Model | None
    reported: dict[date, dict[str, float]]
    settings: Settings


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
    users = np.mean([users for name, _, users in verdicts if name in GOOD[:2]])
    table = report.table(
        "days",
        {"the day's model": "", "days": ",", "refused": ".1%", "by": ""},
        f"{size}, {options.shops} shops, {options.days} days each, "
        f"{users:,.0f} users evaluated a day",
    )
    for name in GOOD + BAD:
        chosen = [verdict for model, verdict, _ in verdicts if model == name]
        if not chosen:  # all days of a quick run are in the sale
            continue
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
    all_days = [OPENS + timedelta(days=n) for n in range(HISTORY + days)]
    sale = max(all_days[HISTORY], all_days[-1] - timedelta(days=SALE_DAYS - 1))
    events = pl.concat(people(opened, day) for day in all_days)
    reported = {day: rejected(opened, day) | offered(opened, day, sale) for day in all_days}
    live: list[Model] = []
    verdicts = []
    for day in all_days[HISTORY - 1 :]:
        old = [model for model in live if model.name <= str(day - timedelta(days=30))]
        night = Night(
            opened,
            day,
            sale,
            live[-1] if live else None,
            old[-1] if old else None,
            reported,
            settings,
        )
        of_day = list(models(events.filter(pl.col("day") <= day), night))
        if live:
            verdicts += [(name, verdict, model.users) for name, model, verdict in of_day]
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


def catalogue(opened: shop.Shop, day: date, sale: date) -> pl.DataFrame:
    """The day's catalogue; in the sale the first 3, 6, 9, … of each hundred items are sold out."""
    products = shop.products(opened, day).rename({"product_id": "item_id"})
    place = products["item_id"].str.slice(1).cast(pl.Int64) * 37 % 100
    sold_out = place < 3 * max(0, (day - sale).days + 1)
    return products.with_columns(stock=pl.when(sold_out).then(0).otherwise("stock"))


def offered(opened: shop.Shop, day: date, sale: date) -> dict[str, float]:
    """What the tasks of a day would have reported of the catalogue."""
    products = catalogue(opened, day, sale)
    known = people(opened, day)["item_id"].is_in(products["item_id"].implode()).mean()
    eligible = eligible_items(products).height
    return {"eligible": eligible, "unmanaged_share": 0.0, "known_share": known}


def models(events: pl.DataFrame, night: Night) -> Iterator[tuple[str, Model, Verdict]]:
    """The day's model, then the same day with one thing wrong."""
    day, lists, training = night.day, night.settings.lists, night.settings.training
    products = catalogue(night.opened, day, night.sale)
    as_is = train(night, events)
    yield GOOD[day >= night.sale], *judged(night, as_is, products)
    if night.champion is None:
        return
    cold = training.model_copy(update={"seed": 1000 + day.toordinal()})
    yield GOOD[2], *judged(night, train(night, events, training=cold, cold=True), products)
    chosen = lists.model_copy(update={"exclude_categories": (CATEGORY,)})
    yield GOOD[3], *judged(night, as_is, products, lists=chosen)
    place, stock = pl.int_range(pl.len()).shuffle(day.toordinal()), pl.col("stock")
    a_tenth = products.with_columns(stock=pl.when(place % 10 == 0).then(0).otherwise(stock))
    yield GOOD[4], *judged(night, as_is, a_tenth)

    first = events["day"].min()
    middle = first + (day - first) // 2
    yield BAD[0], *judged(night, train(night, events.filter(pl.col("day") > middle)), products)
    yield BAD[1], *judged(night, train(night, events, shifted=True), products)
    one = training.model_copy(update={"iterations": 1})
    yield BAD[2], *judged(night, train(night, events, training=one, cold=True), products)
    today = events.filter(pl.col("day") == day)
    drawn = robots_of(night.opened, day).sample(
        int(today.height * 0.3 / 0.7), with_replacement=True, seed=1
    )
    no_filters = night.reported | {day: night.reported[day] | {"bot_share": 0.0}}
    with_robots = train(night, pl.concat([events, drawn]))
    yield BAD[3], *judged(replace(night, reported=no_filters), with_robots, products)
    no_week = (pl.col("day") < day - timedelta(days=7)) | (pl.col("day") == day)
    yield BAD[4], *judged(night, train(night, events.filter(no_week)), products)
    yield BAD[5], *judged(night, train(night, pl.concat([events, today])), products)

    unread = [day - timedelta(days=age) for age in (5, 6, 7)]
    with_gap = train(night, events.filter(~pl.col("day").is_in(unread)))
    yield BAD[6], *judged(night, with_gap, products, unread=unread)
    renamed = pl.col("item_id") + "-new"
    of_category = products.filter(category=CATEGORY)["item_id"].implode()
    yield (
        BAD[7],
        *judged(
            night,
            train(
                night,
                events.with_columns(
                    pl.when(pl.col("item_id").is_in(of_category), pl.col("day") == day)
                    .then(renamed)
                    .otherwise("item_id")
                ),
            ),
            products.with_columns(
                pl.when(pl.col("category") == CATEGORY).then(renamed).otherwise("item_id")
            ),
        ),
    )
    yield BAD[8], *judged(night, as_is, products.with_columns(pl.col("item_id") + ".0"))
    half = products.with_columns(
        status=pl.when(place % 2 == 0).then(pl.lit("draft")).otherwise("status")
    )
    yield BAD[9], *judged(night, as_is, half)
    failed = products.with_columns(stock=pl.when(place % 20 == 0).then(stock).otherwise(0))
    yield BAD[10], *judged(night, as_is, failed)
    no_figure = products.with_columns(stock=pl.when(place % 2 == 0).then(stock))
    yield BAD[11], *judged(night, as_is, no_figure)
    no_category = products.with_columns(category=pl.lit(None, pl.String))
    yield BAD[12], *judged(night, as_is, no_category)


def train(
    night: Night,
    events: pl.DataFrame,
    *,
    training: TrainingSettings | None = None,
    cold: bool = False,
    shifted: bool = False,
) -> Trained:
    settings = night.settings
    training, evaluation = training or settings.training, settings.evaluation
    data = build_interactions(events, night.day, settings.confidence, evaluation)
    champion, older = (carried(model, data) for model in (night.champion, night.reference))
    start = warm_start(champion, training) if champion and not cold else None
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
        champion,
        k,
        evaluation.exclude_seen,
        reference=older,
        buyers=data.buyers,
    )
    served = fit(data.full, training, iterations=training.refit_iterations, factors0=fitted)
    again = served_lists(data.train, lists.users, fitted, served, k, evaluation.exclude_seen)
    metrics = compare_models(
        replace(lists, served=again), cutoffs=evaluation.cutoffs, seed=training.seed
    )
    return Trained(events, data, served, metrics)


def judged(
    night: Night,
    trained: Trained,
    products: pl.DataFrame,
    *,
    lists: ListsSettings | None = None,
    unread: Sequence[date] = (),
) -> tuple[Model, Verdict]:
    """The gate's verdict on what would be served."""
    day, data, champion = night.day, trained.data, night.champion
    lists = lists or night.settings.lists
    start = first_window_day(day, night.settings.confidence)
    eligible = data.items.is_in(
        eligible_items(products, lists.exclude_categories)["item_id"].implode()
    )
    listable = products.filter(~pl.col("category").is_in(lists.exclude_categories).fill_null(False))
    profile = profile_day(
        trained.events,
        day,
        start,
        night.reported,
        catalogue=CatalogueProfile(
            items=products["item_id"],
            eligible=eligible_items(products).height,
            unmanaged_share=unmanaged_share(products),
            known_items=int(data.items.is_in(listable["item_id"].implode()).sum()),
        ),
        read_days={start + timedelta(days=n) for n in range(60)} - set(unread),
    )
    frames = list_frames(trained, products, eligible, lists, night.settings)
    may_be_listed = data.items.filter(eligible)
    figures = list_figures(
        {kind: frames[kind]["items"] for kind in KINDS},
        frames["popular"]["item_id"],
        n_users=len(data.users),
        top_n=lists.top_n,
    )
    changed = champion is not None and lists != champion.lists
    served = trained.served
    verdict = decide(
        {
            "protocol": "next_day",
            "champion_version": champion and champion.name,
            "reference_version": night.reference and night.reference.name,
            "factors_finite": bool(
                np.isfinite(served.user).all() and np.isfinite(served.item).all()
            ),
            "ids_match": True,
            "data": profile.model_dump(mode="json"),
            "champion_data": champion and champion.profile.model_dump(mode="json"),
            "lists": figures
            | {
                "changed_settings": ["exclude_categories"] if changed else [],
                "lost_share": champion and lost_share(champion.recommendations, may_be_listed),
            },
            "champion_lists": champion and champion.list_figures,
            **trained.metrics,
        },
        night.settings.gate,
    )
    model = Model(
        str(day),
        data,
        served,
        profile,
        lists,
        figures,
        frames["recommendations"]["items"],
        trained.metrics["users"],
    )
    return model, verdict


def list_frames(
    trained: Trained,
    products: pl.DataFrame,
    eligible: pl.Series,
    lists: ListsSettings,
    settings: Settings,
) -> dict[str, pl.DataFrame]:
    """The lists of the worker; without baskets, because these events have no time of the day."""
    items = trained.data.items
    category = pl.DataFrame({"item_id": items}).join(
        products.select("item_id", "category"), on="item_id", how="left", maintain_order="left"
    )["category"]
    inputs = replace(ListInputs.empty(len(items)), category=category)
    spec = JobSpec.model_construct(lists=lists, training=settings.training)
    job = JobInputs(trained.data, eligible.to_numpy(), inputs)
    return TrainingRun(spec, job, None, None, checkpoints=None).recommend(trained.served)


def carried(model: Model | None, data: Interactions) -> Matched | None:
    return model and match(
        model.factors, model.data.users, model.data.items, data.users, data.items
    )
