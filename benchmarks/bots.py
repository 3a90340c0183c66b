"""``python benchmarks/bots.py [--seeds 101 102 103] [--uci online_retail_2009_2010.parquet]``: whom the filters for robots find.

Prints, each share with its Wilson interval (95 %): precision and recall for the scrapers that the demo shop plants, counted in
users and days; harder robots, and people who look like robots, which it does not plant; an id that a quarter of the shop's
events share; the time for a million rows; and, given the UCI data (Online Retail II, 2009–2010), its wholesalers.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import binomtest

from recsys_ops.cleaning import filter_bots
from recsys_ops.cleaning.slow_bots import find_slow_bots
from recsys_ops.demo.events import COLUMNS, day_events
from recsys_ops.demo.shop import DEMO, Shop
from recsys_ops.ingest.steps import STEPS
from recsys_ops.settings import BotSettings, CleaningSettings

OPENS = date(2026, 3, 2)
DAYS = 90
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
COPIES = 200
BOTS = BotSettings()
Seconds = np.ndarray


def share(part: int, whole: int) -> str:
    if not whole:
        return "–"
    interval = binomtest(part, whole).proportion_ci(method="wilson")
    return f"{part / whole:6.1%} ({interval.low:.3f} … {interval.high:.3f}) {part:,} of {whole:,}"


def shop(seed: int) -> pl.DataFrame:
    """What reaches `filter_bots` of the demo shop's first days, each row with its ``label``."""
    delivered = pl.concat(
        day_events(Shop(DEMO, OPENS, seed), OPENS + timedelta(days=n)) for n in range(DAYS)
    )
    labels = delivered.select(row_id=pl.col("line_id").cast(pl.String), label="label")
    rows = delivered.select(
        pl.col("line_id").cast(pl.String).alias("row_id"),
        *COLUMNS[1:],
        email=pl.lit(None, pl.String),
        role=pl.lit("customer"),
    )
    left = rows.lazy()
    for name in ("align_schema", "fix_types", "deduplicate", "filter_crawlers"):
        left = STEPS[name].function(left, CleaningSettings()).kept.collect().lazy()
    return left.collect().join(labels, on="row_id", how="left", maintain_order="left")


def planted(rows: pl.DataFrame) -> tuple[int, int, int]:
    """Scrapers found, scrapers, and users found; in users and days."""
    key = ("user_id", pl.col("recorded_at").dt.date().alias("day"))
    found = filter_bots(rows.lazy(), BOTS).rejected.collect().select(*key, "label").unique()
    scrapers = rows.filter(label="scraper").select(key).unique()
    return found.filter(label="scraper").height, scrapers.height, found.height


def gaps(rng: np.random.Generator, count: int, mean: float) -> Seconds:
    """Uneven, as people's are."""
    return np.cumsum(rng.exponential(mean, count))


def jittered(rng: np.random.Generator, count: int, pace: float, jitter: float) -> Seconds:
    return np.cumsum(pace * rng.uniform(1 - jitter, 1 + jitter, count))


# the acts of a day in seconds, the items, and the event type (the last act's, where there are two)
ROBOTS: dict[str, Callable[[np.random.Generator], tuple[Seconds, int, str]]] = {
    "gaps jittered by 50 %": lambda rng: (jittered(rng, 150, 60, 0.5), 150, "view"),
    "gaps jittered by 80 %": lambda rng: (jittered(rng, 150, 60, 0.8), 150, "view"),
    "steady, a pause after 25 pages": lambda rng: (
        np.add.outer(np.arange(6) * 5000, jittered(rng, 25, 60, 0.2)).ravel(),
        150,
        "view",
    ),
    "people's gaps, 9 hours": lambda rng: (gaps(rng, 200, 162), 200, "view"),
    "people's gaps, 5 hours, 200 items": lambda rng: (gaps(rng, 200, 90), 200, "view"),
    "people's gaps, 5 hours, 300 items": lambda rng: (gaps(rng, 300, 60), 300, "view"),
    "steady, fills carts": lambda rng: (jittered(rng, 900, 2, 0.2), 300, "cart"),
    "steady, 5 ids of 60 pages": lambda rng: (jittered(rng, 60, 60, 0.2), 60, "view"),
    "steady, buys once": lambda rng: (jittered(rng, 300, 60, 0.2), 300, "view purchase"),
}
PEOPLE: dict[str, Callable[[np.random.Generator], tuple[Seconds, int, str]]] = {
    "window shopper, 120 pages": lambda rng: (gaps(rng, 120, 60), 60, "view"),
    "window shopper, 240 pages": lambda rng: (gaps(rng, 240, 60), 120, "view"),
    "window shopper, 400 pages, 300 items": lambda rng: (gaps(rng, 400, 60), 300, "view"),
    "heavy buyer, all day": lambda rng: (gaps(rng, 600, 90), 300, "view purchase"),
    "heavy shopper, cart only, 6 hours": lambda rng: (gaps(rng, 400, 54), 300, "view cart"),
    "wholesaler, 300 lines in carts, unpaid": lambda rng: (
        np.repeat(gaps(rng, 15, 600), 20),
        280,
        "cart",
    ),
}


def cast(
    kinds: dict[str, Callable[[np.random.Generator], tuple[Seconds, int, str]]],
) -> pl.LazyFrame:
    """One day with `COPIES` users of each kind, their ids ``<kind>/<number>``."""
    rng, parts = np.random.default_rng(11), []
    for name, act in kinds.items():
        for number in range(COPIES):
            seconds, items, types = act(rng)
            first, *last = types.split()
            parts.append(
                pl.DataFrame(
                    {
                        "user_id": f"{name}/{number}",
                        "item_id": [f"p{i % items}" for i in range(len(seconds))],
                        "event_type": [first] * (len(seconds) - len(last)) + last,
                        "seconds": seconds,
                    }
                )
            )
    moment = pl.lit(MIDNIGHT) + pl.duration(microseconds=(8 * 3600 + pl.col("seconds")) * 1e6)
    return (
        pl.concat(parts)
        .with_columns(event_time=moment, recorded_at=pl.lit(MIDNIGHT))
        .with_row_index("row")
        .lazy()
    )


def weeks(rng: np.random.Generator) -> dict[str, int]:
    """Of robots that stay below every daily limit, how many the window's judge leaves out, by kind."""
    counts = {
        "90 pages every day": lambda: np.full(28, 90),
        "40 to 80 pages every day": lambda: rng.integers(40, 81, 28),
        "60 to 80 pages, not at weekends": lambda: (
            rng.integers(60, 81, 28) * (np.arange(28) % 7 < 5)
        ),
        "a person who looks in daily, 1 to 80 pages": lambda: rng.integers(1, 81, 28),
    }
    found = {}
    for name, draw in counts.items():
        days = [np.repeat(np.arange(28), draw()) for _ in range(COPIES)]
        rows = pl.DataFrame(
            {
                "user_id": np.repeat([f"u{n}" for n in range(COPIES)], [len(of) for of in days]),
                "day": pl.Series(np.concatenate(days)),
                "item_id": pl.Series(np.concatenate([np.arange(len(of)) % 400 for of in days])),
                "event_type": "view",
            }
        ).with_columns(day=pl.lit(OPENS) + pl.duration(days="day"))
        found[name] = find_slow_bots(rows, BOTS.window).height
    return found


def shared(rows: pl.DataFrame) -> str:
    """A quarter of the customers' rows, purchases too, under the id ``0``: on how many days it is a pseudo-user."""
    quarter = pl.col("label").is_in(["human"]) & (pl.int_range(pl.len()) % 3 == 0)
    renamed = rows.with_columns(user_id=pl.when(quarter).then(pl.lit("0")).otherwise("user_id"))
    found = filter_bots(renamed.lazy(), BOTS).rejected.filter(reason="pseudo_user").collect()
    others = found.filter(pl.col("user_id") != "0")["user_id"].n_unique()
    days = found.filter(user_id="0")["recorded_at"].dt.date().n_unique()
    part = renamed.filter(user_id="0").height / renamed.height
    return f"{share(days, DAYS)} days, with {part:.0%} of all events; {others} other ids"


def uci(path: Path) -> None:
    """Its lines as events of each kind. Lines without a customer stand under the id ``0``."""
    moment = pl.col("InvoiceDate").str.to_datetime(time_zone="UTC")
    customer = pl.col("Customer ID").cast(pl.Int64).cast(pl.String).fill_null("0")
    lines = pl.read_parquet(path).select(
        user_id=customer, item_id="StockCode", event_time=moment, recorded_at=moment
    )
    key = ("user_id", pl.col("recorded_at").dt.date().alias("day"))
    large = lines.filter(pl.col("user_id") != "0").group_by(key).len().filter(pl.col("len") > 150)
    for kind in ("purchase", "checkout", "cart", "view"):
        rows = lines.with_columns(event_type=pl.lit(kind)).with_row_index("row").lazy()
        cleaned = filter_bots(rows, BOTS)
        rejected = cleaned.rejected.select(*key, "reason").unique().collect()
        hit = large.join(rejected, on=["user_id", "day"], how="semi").height
        reasons = dict(rejected.group_by("reason").len().iter_rows())
        print(
            f"  as {kind + 's':10} kept of the customer-days above 150 lines {share(large.height - hit, large.height)}"
        )
        print(f"     rejected users and days: {reasons}, signs {cleaned.notes['signs']}")
    history = lines.select(
        pl.col("recorded_at").dt.date().alias("day"),
        "user_id",
        "item_id",
        event_type=pl.lit("purchase"),
    )
    print(
        "  left out of the model of the whole year:",
        find_slow_bots(history, BOTS.window).select("user_id", "reason", "value").rows(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--uci", type=Path)
    arguments = parser.parse_args()
    shops = {seed: shop(seed) for seed in arguments.seeds}
    print(
        f"the demo shop's scrapers, {DAYS} days of {DEMO.events_per_day:,} rows, in users and days"
    )
    counts = {seed: planted(rows) for seed, rows in shops.items()}
    for seed, (right, scrapers, found) in [
        *counts.items(),
        ("all", np.sum(list(counts.values()), axis=0).tolist()),
    ]:
        print(f"  seed {seed}: precision {share(right, found)}, recall {share(right, scrapers)}")
    for title, kinds in (("harder robots, rejected", ROBOTS), ("people, rejected", PEOPLE)):
        found = (
            filter_bots(cast(kinds), BOTS).rejected.select("user_id").unique().collect()["user_id"]
        )
        print(title)
        for name in kinds:
            print(f"  {name:42} {share(int(found.str.starts_with(f'{name}/').sum()), COPIES)}")
    print("below every daily limit, for four weeks; left out of the model")
    for name, count in weeks(np.random.default_rng(12)).items():
        print(f"  {name:42} {share(count, COPIES)}")
    print("a quarter under one id, caught:", shared(shops[arguments.seeds[0]]))
    with tempfile.TemporaryDirectory() as folder:
        million, file = pl.concat(shops.values()).head(1_000_000), Path(folder, "rows.parquet")
        million.drop("row").with_row_index("row").write_parquet(file)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            filter_bots(pl.scan_parquet(file), BOTS)
            seconds.append(time.perf_counter() - started)
        print(f"time for {million.height:,} rows: {min(seconds):.2f} s")
    if arguments.uci:
        print("UCI Online Retail II, 2009–2010")
        uci(arguments.uci)


if __name__ == "__main__":
    main()
