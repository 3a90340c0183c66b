"""What each filter does for the recommendations, on the demo shop.

Four weeks of a shop go through `align_schema`, `fix_types` and `deduplicate`, then through all
filters, all but one, or none. A model of the remaining rows makes lists for the true customers of
the next day, whom the shop knows; only their carts and purchases of that day count. All models
start from one model of the customers' rows and take as many sweeps as the worker's. From starts of
their own they would differ more by chance than by what the filters keep; the last row of each table
shows it.

Beside NDCG@20 and coverage@20 (the share of the catalogue that is in anybody's list) the tables
show how far robots and staff steer the recommendations, compared with the model of the customers'
rows:

- places steered: the share of the places 1 to 20 with an item that the other model does not list
  for that customer. Any change of the rows does that; the row "5 % left out" shows how much.
- unpopular: the share of the places with one of the 30 items that people look at least.
- popularity: Spearman's correlation of the items' popularity.
- popular list: the places steered in the list of popular items, which unknown users get.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import spearmanr

from benchmarks.cleaning import steps
from benchmarks.harness import Report
from recsys_ops import cleaning
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.warm_start import match
from recsys_ops.cleaning.slow_bots import find_slow_bots
from recsys_ops.demo import events, shop
from recsys_ops.evaluation.metrics import ranking_metrics
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import evaluation_lists, popularity
from recsys_ops.settings import TrainingSettings, include_dir, load_settings

OPENS = date(2026, 5, 1)
WEEKS = 4
DAY = OPENS + timedelta(weeks=WEEKS)
K = 20
USERS, ITEMS, CUSTOMERS_ROWS = 5_000, 1_000, 17_600
UNPOPULAR = 30
FILTERS: dict[str, Callable[[pl.LazyFrame], cleaning.Cleaned]] = {
    "filter_crawlers": lambda rows: cleaning.filter_crawlers(rows, steps.SETTINGS.crawlers),
    "filter_bots": lambda rows: cleaning.filter_bots(rows, steps.SETTINGS.bots),
    "filter_staff": lambda rows: cleaning.filter_staff(rows, steps.SETTINGS.staff),
}
REFERENCE, ALL = "customers' rows alone", "all filters"
CHANCE, FEWER = f"{REFERENCE}, another random start", f"{REFERENCE}, 5 % left out"
SUMMARY = (ALL, *(f"without {name}" for name in FILTERS), "no filter", FEWER, CHANCE)


@dataclass(frozen=True)
class Robots:
    """Shares of all rows, and whether the undeclared robots look only at unpopular items."""

    crawlers: float
    scrapers: float
    watch: bool = False


ROBOTS = {
    "The demo's robots, 12 % of the rows": Robots(0.06, 0.06),
    "Five times as many, 60 % of the rows": Robots(0.3, 0.3),
    f"The same, the undeclared ones look only at the {UNPOPULAR} least popular items": Robots(
        0.3, 0.3, watch=True
    ),
}


@dataclass(frozen=True)
class Model:
    """A model and its lists; items are places in the catalogue, −1 for none.

    data : its training data · factors : in the order of the data's users and items
    users : String, (n,), sorted, the customers evaluated · lists : int32, (n, K)
    popularity : (catalogue,), the sum over users of confidence − 1 · popular : int32, (K,)
    liked : csr_matrix, bool, (n, catalogue), the carts and purchases of the next day

    """

    data: Interactions
    factors: Factors
    users: pl.Series
    lists: NDArray[np.int32]
    popularity: NDArray[np.float64]
    popular: NDArray[np.int32]
    liked: sparse.csr_matrix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shops", type=int, default=3, help="shops of different seeds")


def run(options: argparse.Namespace, report: Report) -> None:
    shops, cases = (1, dict([*ROBOTS.items()][:1])) if options.quick else (options.shops, ROBOTS)
    summary = []
    for number, (name, robots) in enumerate(cases.items(), 1):
        figures = pl.concat(measured(seed, robots) for seed in range(1, shops + 1))
        customers = figures["customers"].mean()
        note = f"{name} ({shops} shops, {customers:,.0f} customers evaluated in each, mean ± sd)"
        add_table(report, f"filters-{number}", note, figures)
        lost = figures.filter(pl.col("trained on") == ALL)["lost"].mean()
        print(f"\nAll filters together rejected {lost:.2%} of the customers' rows.")
        for row in report.tables[f"filters-{number}"].rows:
            trained_on, foreign, _, change, coverage, places, _, _, popular_list = row
            if trained_on in SUMMARY and (number == 1 or trained_on == "without filter_bots"):
                cells = [foreign, change, coverage, places, popular_list]
                summary.append([name, trained_on, *cells])
    table = report.table(
        "filters",
        {
            "robots": "",
            "trained on": "",
            "rows not customers'": ".1%",
            f"NDCG@{K}": "",
            f"coverage@{K}": "",
            "places steered": "",
            "popular list": ".0%",
        },
        f"NDCG@{K} against all filters",
    )
    for row in summary:
        table.add(*row)


def measured(seed: int, robots: Robots) -> pl.DataFrame:
    """One row a model: its training data and its figures."""
    total = round(CUSTOMERS_ROWS / (1 - robots.crawlers - robots.scrapers))
    demo = shop.Shop(
        shop.ShopSize(USERS, ITEMS, total),
        OPENS,
        seed,
        shop.Dirt(crawlers=robots.crawlers, scrapers=robots.scrapers),
    )
    catalogue = shop.items(demo, DAY).ids
    unpopular = np.flatnonzero(catalogue.is_in(least_popular(demo).implode()))
    rows, next_day = history(demo, robots)
    truth = rows.filter(label="human")
    trained_on = {
        REFERENCE: truth,
        ALL: filtered(rows, tuple(FILTERS)),
        **{
            f"without {name}": filtered(rows, tuple(other for other in FILTERS if other != name))
            for name in FILTERS
        },
        "no filter": rows,
        FEWER: truth.filter(np.random.default_rng(seed).random(truth.height) >= 0.05),
        CHANCE: truth,
    }
    training = load_settings().training
    start = train(truth, next_day, catalogue, training)
    other = train(
        truth, next_day, catalogue, training.model_copy(update={"seed": training.seed + 1})
    )
    models = {
        name: train(kept, next_day, catalogue, training, other if name == CHANCE else start)
        for name, kept in trained_on.items()
    }
    # a customer whose rows a filter rejected has no list to compare
    users = sorted(set.intersection(*(set(model.users) for model in models.values())))
    models = {name: only(model, users) for name, model in models.items()}
    reference = models[REFERENCE]
    scores = {
        name: ranking_metrics(model.lists, reference.liked, (K,), most_popular=model.popular)
        for name, model in models.items()
    }
    return pl.DataFrame(
        {
            "trained on": name,
            "customers": len(users),
            "foreign": (trained_on[name]["label"] != "human").mean(),
            "lost": 1 - trained_on[name].filter(label="human").height / truth.height,
            "ndcg": scores[name][f"ndcg@{K}"],
            "change": scores[name][f"ndcg@{K}"] / scores[ALL][f"ndcg@{K}"] - 1,
            "coverage": scores[name][f"coverage@{K}"],
            "steered": steered(model.lists, reference.lists),
            "unpopular": np.isin(model.lists, unpopular).mean(),
            "popularity": spearmanr(model.popularity, reference.popularity).statistic,
            "popular list": steered(model.popular[None], reference.popular[None]),
        }
        for name, model in models.items()
    )


def history(demo: shop.Shop, robots: Robots) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The weeks' rows with ``day`` and true ``label``; the customers' rows of the next day."""
    parts, labels = [], []
    for day in (OPENS + timedelta(days=n) for n in range(7 * WEEKS + 1)):
        recorded = events.day_events(demo, day)
        if robots.watch:
            recorded = watching(demo, recorded)
        parts.append(steps.delivered(demo, day, recorded))
        labels.append(recorded.select(pl.col("line_id").cast(pl.String).alias("row_id"), "label"))
    contract = cleaning.load_contract(include_dir() / steps.SETTINGS.contract)
    aligned = cleaning.align_schema(pl.concat(parts).lazy(), contract).kept
    fixed = cleaning.fix_types(aligned, contract).kept.collect()
    single = (
        cleaning.deduplicate(fixed.lazy())
        .kept.with_columns(day=pl.col("recorded_at").dt.date())
        .collect()
    )
    rows = single.join(pl.concat(labels), on="row_id", maintain_order="left")
    return rows.filter(pl.col("day") < DAY), rows.filter(day=DAY, label="human")


def watching(demo: shop.Shop, recorded: pl.DataFrame) -> pl.DataFrame:
    """The same rows, but the undeclared robots look at the unpopular items."""
    watched = least_popular(demo)
    nth = watched.gather(np.arange(len(recorded)) % len(watched))
    return recorded.with_columns(
        product_id=pl.when(label="scraper").then(nth).otherwise("product_id")
    )


def least_popular(demo: shop.Shop) -> pl.Series:
    items = shop.items(demo, OPENS)
    return items.ids.gather(np.argsort(items.popularity, kind="stable")[:UNPOPULAR])


def filtered(rows: pl.DataFrame, filters: tuple[str, ...]) -> pl.DataFrame:
    kept = rows.lazy()
    for name in filters:
        kept = FILTERS[name](kept).kept
    return kept.collect()


def train(
    rows: pl.DataFrame,
    next_day: pl.DataFrame,
    catalogue: pl.Series,
    training: TrainingSettings,
    start: Model | None = None,
) -> Model:
    """Matrix, model and lists as `build_matrix` and the worker make them.

    rows : those before the day · next_day : the customers' rows of the day
    """
    settings = load_settings()
    window = pl.concat([rows, next_day]).select("day", "user_id", "item_id", "event_type")
    slow_bots = find_slow_bots(window, settings.cleaning.slow_bots)["user_id"]
    people = window.filter(~pl.col("user_id").is_in(slow_bots.implode()))
    data = build_interactions(people, DAY, settings.confidence, settings.evaluation)
    factors0 = (
        match(start.factors, start.data.users, start.data.items, data.users, data.items).factors
        if start
        else None
    )
    factors = fit(data.train, training, iterations=training.iterations, factors0=factors0)
    evaluated = evaluation_lists(
        data.train, data.holdout, factors, None, K, settings.evaluation.exclude_seen
    )
    places = pl.DataFrame({"item": catalogue, "place": np.arange(len(catalogue), dtype=np.int32)})
    place = (
        pl.DataFrame({"item": data.items})
        .join(places, on="item", how="left", maintain_order="left")["place"]
        .to_numpy()
    )
    places_of = np.append(place, np.int32(-1))
    popular = np.zeros(len(catalogue))
    popular[place] = popularity(data.train)
    liked = evaluated.relevant.tocoo()
    return Model(
        data=data,
        factors=factors,
        users=data.users.gather(evaluated.users),
        lists=places_of[evaluated.challenger],
        popularity=popular,
        popular=places_of[evaluated.most_popular],
        liked=sparse.csr_matrix(
            (liked.data, (liked.row, places_of[liked.col])),
            shape=(len(evaluated.users), len(catalogue)),
        ),
    )


def only(model: Model, users: list[str]) -> Model:
    """The model with the lists of these users only."""
    chosen = np.flatnonzero(model.users.is_in(users).to_numpy())
    return replace(
        model,
        users=model.users.gather(chosen),
        lists=model.lists[chosen],
        liked=model.liked[chosen],
    )


def steered(lists: NDArray[np.int32], reference: NDArray[np.int32]) -> float:
    """The share of places whose item is not in the same user's list of `reference`; (n, K) both."""
    return float((lists[:, :, None] != reference[:, None, :]).all(axis=2).mean())


def add_table(report: Report, name: str, note: str, figures: pl.DataFrame) -> None:
    table = report.table(
        name,
        {
            "trained on": "",
            "rows not customers'": ".1%",
            f"NDCG@{K}": "",
            "against all filters": "",
            f"coverage@{K}": "",
            "places steered": "",
            "unpopular": "",
            "popularity": ".3f",
            "popular list": ".0%",
        },
        note,
    )
    for (trained_on,), rows in figures.group_by("trained on", maintain_order=True):
        table.add(
            str(trained_on),
            rows["foreign"].mean(),
            spread(rows["ndcg"], ".4f"),
            spread(rows["change"], "+.1%"),
            *(spread(rows[column], ".1%") for column in ("coverage", "steered", "unpopular")),
            rows["popularity"].mean(),
            rows["popular list"].mean(),
        )


def spread(values: pl.Series, form: str) -> str:
    deviation = values.std() or 0.0
    return f"{values.mean():{form}} ± {deviation:{form.removeprefix('+')}}"
