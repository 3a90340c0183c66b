"""``python benchmarks/filters.py [--shops 3]``: what each filter does for the recommendations, on the demo shop.

Four weeks of a shop go through `align_schema`, `fix_types` and `deduplicate`, then through all filters, all but one, or none. A
model of what each leaves makes lists for the true customers of the next day (the shop knows who is one); their carts and
purchases of that day, and nobody else's, are what counts. All models start from one model of the customers' rows and take as many
sweeps as the worker's: from starts of their own they would differ more by chance than by what the filters leave, as the last row
of each table shows.

Beside NDCG@20 and coverage@20 (the share of the catalogue that stands in anybody's list) the tables say how far robots and staff
steer the recommendations, compared with the model of the customers' rows alone:

- places steered: the share of the places 1 to 20 with an item that the other model does not list for that customer. Any change of
  the rows does that: leaving out a random 5 % of the customers' rows shows how much.
- unpopular: the share of the places that hold one of the 30 products that people look at least.
- popularity: Spearman's correlation of the items' popularity.
- strangers: the places steered in the list of popular items, which strangers get.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

import clean
import numpy as np
import polars as pl
from measure import machine
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import spearmanr

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
    "filter_crawlers": lambda rows: cleaning.filter_crawlers(rows, clean.SETTINGS.crawlers),
    "filter_bots": lambda rows: cleaning.filter_bots(rows, clean.SETTINGS.bots),
    "filter_staff": lambda rows: cleaning.filter_staff(rows, clean.SETTINGS.staff),
}
REFERENCE, ALL = "customers' rows alone", "all filters"
CHANCE, FEWER = f"{REFERENCE}, another random start", f"{REFERENCE}, 5 % left out"


@dataclass(frozen=True)
class Robots:
    """Robots' share of all rows, and whether the undeclared ones watch the unpopular products alone."""

    crawlers: float
    scrapers: float
    watch: bool = False


ROBOTS = {
    "The demo's robots, 12 % of the rows": Robots(0.06, 0.06),
    "Five times as many, 60 % of the rows": Robots(0.3, 0.3),
    f"The same, and the undeclared ones look at nothing but the {UNPOPULAR} least popular products": Robots(
        0.3, 0.3, watch=True
    ),
}


@dataclass(frozen=True)
class Model:
    """A model and what it lists; items are places in the catalogue, −1 for none.

    data : what it was trained on · factors : in the order of its users and items
    users : String, (n,), sorted, the customers judged · lists : int32, (n, K)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shops",
        type=int,
        default=3,
        help="shops of different seeds; the tables show mean ± standard deviation",
    )
    options = parser.parse_args()
    began, cpu = time.perf_counter(), time.process_time()
    print(machine())
    for name, robots in ROBOTS.items():
        found = pl.concat(measured(seed, robots) for seed in range(1, options.shops + 1))
        print(
            f"\n**{name}** ({options.shops} shops, {found['customers'].mean():,.0f} customers judged in each)\n"
        )
        print_table(found)
    print(f"\n{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} CPU s")


def measured(seed: int, robots: Robots) -> pl.DataFrame:
    """One row a model: what it was trained on and what it is worth."""
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
        name: train(left, next_day, catalogue, training, other if name == CHANCE else start)
        for name, left in trained_on.items()
    }
    # whose rows a filter took has no list to compare
    judged = sorted(set.intersection(*(set(model.users) for model in models.values())))
    models = {name: of(model, judged) for name, model in models.items()}
    truly = models[REFERENCE]
    scores = {
        name: ranking_metrics(model.lists, truly.liked, (K,), most_popular=model.popular)
        for name, model in models.items()
    }
    return pl.DataFrame(
        {
            "trained on": name,
            "customers": len(judged),
            "foreign": (trained_on[name]["label"] != "human").mean(),
            "lost": 1 - trained_on[name].filter(label="human").height / truth.height,
            "ndcg": scores[name][f"ndcg@{K}"],
            "change": scores[name][f"ndcg@{K}"] / scores[ALL][f"ndcg@{K}"] - 1,
            "coverage": scores[name][f"coverage@{K}"],
            "steered": steered(model.lists, truly.lists),
            "unpopular": np.isin(model.lists, unpopular).mean(),
            "popularity": spearmanr(model.popularity, truly.popularity).statistic,
            "strangers": steered(model.popular[None], truly.popular[None]),
        }
        for name, model in models.items()
    )


def history(demo: shop.Shop, robots: Robots) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The canonical rows of the weeks, with ``day`` and the true ``label``, and the customers' rows of the day after."""
    parts, labels = [], []
    for day in (OPENS + timedelta(days=n) for n in range(7 * WEEKS + 1)):
        recorded = events.day_events(demo, day)
        if robots.watch:
            recorded = watching(demo, recorded)
        parts.append(clean.delivered(demo, day, recorded))
        labels.append(recorded.select(pl.col("line_id").cast(pl.String).alias("row_id"), "label"))
    contract = cleaning.load_contract(include_dir() / clean.SETTINGS.contract)
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
    """The undeclared robots' views, turned to the unpopular products."""
    watched = least_popular(demo)
    nth = watched.gather(np.arange(len(recorded)) % len(watched))
    return recorded.with_columns(
        product_id=pl.when(label="scraper").then(nth).otherwise("product_id")
    )


def least_popular(demo: shop.Shop) -> pl.Series:
    known = shop.items(demo, OPENS)
    return known.ids.gather(np.argsort(known.popularity, kind="stable")[:UNPOPULAR])


def filtered(rows: pl.DataFrame, filters: tuple[str, ...]) -> pl.DataFrame:
    left = rows.lazy()
    for name in filters:
        left = FILTERS[name](left).kept
    return left.collect()


def train(
    rows: pl.DataFrame,
    next_day: pl.DataFrame,
    catalogue: pl.Series,
    training: TrainingSettings,
    start: Model | None = None,
) -> Model:
    """Matrix, model and lists as `build_matrix` and the worker make them, of the rows before the day and the customers' on it."""
    settings = load_settings()
    together = pl.concat([rows, next_day]).select("day", "user_id", "item_id", "event_type")
    left_out = find_slow_bots(together, settings.cleaning.slow_bots)["user_id"]
    people = together.filter(~pl.col("user_id").is_in(left_out.implode()))
    data = build_interactions(people, DAY, settings.confidence, settings.evaluation)
    factors0 = (
        match(start.factors, start.data.users, start.data.items, data.users, data.items).factors
        if start
        else None
    )
    factors = fit(data.train, training, iterations=training.iterations, factors0=factors0)
    found = evaluation_lists(
        data.train, data.holdout, factors, None, K, settings.evaluation.exclude_seen
    )
    places = pl.DataFrame({"item": catalogue, "place": np.arange(len(catalogue), dtype=np.int32)})
    place = (
        pl.DataFrame({"item": data.items})
        .join(places, on="item", how="left", maintain_order="left")["place"]
        .to_numpy()
    )
    at = np.append(place, np.int32(-1))
    popular = np.zeros(len(catalogue))
    popular[place] = popularity(data.train)
    liked = found.relevant.tocoo()
    return Model(
        data=data,
        factors=factors,
        users=data.users.gather(found.users),
        lists=at[found.challenger],
        popularity=popular,
        popular=at[found.most_popular],
        liked=sparse.csr_matrix(
            (liked.data, (liked.row, at[liked.col])), shape=(len(found.users), len(catalogue))
        ),
    )


def of(model: Model, users: list[str]) -> Model:
    """The lists of these users alone."""
    chosen = np.flatnonzero(model.users.is_in(users).to_numpy())
    return replace(
        model,
        users=model.users.gather(chosen),
        lists=model.lists[chosen],
        liked=model.liked[chosen],
    )


def steered(lists: NDArray[np.int32], reference: NDArray[np.int32]) -> float:
    """The share of the places in `lists` whose item is not in the same user's list in `reference`; (n, K) both."""
    return float((lists[:, :, None] != reference[:, None, :]).all(axis=2).mean())


def print_table(found: pl.DataFrame) -> None:
    columns = (
        "rows not customers'",
        f"NDCG@{K}",
        "against all filters",
        f"coverage@{K}",
        "places steered",
        "unpopular",
    )
    print(f"| trained on | {' | '.join(columns)} | popularity | strangers |\n|---|{'--:|' * 8}")
    for (name,), rows in found.group_by("trained on", maintain_order=True):
        cells = [
            f"{rows['foreign'].mean():.1%}",
            spread(rows["ndcg"], ".4f"),
            spread(rows["change"], "+.1%"),
            *(spread(rows[column], ".1%") for column in ("coverage", "steered", "unpopular")),
            f"{rows['popularity'].mean():.3f}",
            f"{rows['strangers'].mean():.0%}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    lost = found.filter(pl.col("trained on") == ALL)["lost"].mean()
    print(f"\nOf the customers' rows all filters together took {lost:.2%}.")


def spread(values: pl.Series, form: str) -> str:
    return f"{values.mean():{form}} ± {values.std():{form.removeprefix('+')}}"


if __name__ == "__main__":
    main()
