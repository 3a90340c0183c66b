"""How many robots and how many people the filters for undeclared robots reject.

Each share has its Wilson interval (95 %): the scrapers that the demo shop plants, in users and
days; harder robots, and people who look like robots, which it does not plant; an id that a quarter
of the shop's events share; the seconds for a million rows; and, with the UCI data (Online Retail
II, 2009-2010), its wholesalers.
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import binomtest

from benchmarks.harness import Report, Table, fastest
from recsys_ops.cleaning import filter_bots
from recsys_ops.cleaning.slow_bots import find_slow_bots
from recsys_ops.demo.events import COLUMNS, day_events
from recsys_ops.demo.shop import DEMO, Shop
from recsys_ops.ingest.steps import STEPS
from recsys_ops.settings import BotSettings, CleaningSettings, SlowBotSettings

OPENS = date(2026, 3, 2)
DAYS = 90
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
COPIES = 200
BOTS, SLOW_BOTS = BotSettings(), SlowBotSettings()
Seconds = np.ndarray


def add_share(table: Table, name: str, part: int, total: int) -> None:
    """Add a row with the share and its interval."""
    interval = binomtest(part, total).proportion_ci(method="wilson")
    bounds = f"{interval.low:.3f} to {interval.high:.3f}"
    table.add(name, part, total, part / total, bounds)


def shop(seed: int, days: int) -> pl.DataFrame:
    """The rows of the demo shop's first days before `filter_bots`, each with its ``label``."""
    delivered = pl.concat(
        day_events(Shop(DEMO, OPENS, seed), OPENS + timedelta(days=n)) for n in range(days)
    )
    labels = delivered.select(row_id=pl.col("line_id").cast(pl.String), label="label")
    rows = delivered.select(
        pl.col("line_id").cast(pl.String).alias("row_id"),
        *COLUMNS[1:],
        email=pl.lit(None, pl.String),
        role=pl.lit("customer"),
    )
    kept = rows.lazy()
    for name in ("align_schema", "fix_types", "deduplicate", "filter_crawlers"):
        kept = STEPS[name].function(kept, CleaningSettings()).kept.collect().lazy()
    return kept.collect().join(labels, on="row_id", how="left", maintain_order="left")


def planted(rows: pl.DataFrame) -> tuple[int, int, int]:
    """Scrapers rejected, scrapers planted, and users rejected; each on each day."""
    key = ("user_id", pl.col("recorded_at").dt.date().alias("day"))
    rejected = filter_bots(rows.lazy(), BOTS).rejected.collect().select(*key, "label").unique()
    scrapers = rows.filter(label="scraper").select(key).unique()
    return rejected.filter(label="scraper").height, scrapers.height, rejected.height


def gaps(rng: np.random.Generator, count: int, mean: float) -> Seconds:
    """Uneven, as people's are."""
    return np.cumsum(rng.exponential(mean, count))


def jittered(rng: np.random.Generator, count: int, pace: float, jitter: float) -> Seconds:
    return np.cumsum(pace * rng.uniform(1 - jitter, 1 + jitter, count))


# The seconds of a day's events, the number of items, and the event type. With two types the second
# is that of the last event.
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
    """By kind, how many robots below every daily limit `find_slow_bots` finds."""
    counts = {
        "90 pages every day": lambda: np.full(28, 90),
        "40 to 80 pages every day": lambda: rng.integers(40, 81, 28),
        "60 to 80 pages, not at weekends": lambda: (
            rng.integers(60, 81, 28) * (np.arange(28) % 7 < 5)
        ),
        "a person who looks in daily, 1 to 80 pages": lambda: rng.integers(1, 81, 28),
    }
    slow_bots = {}
    for name, draw in counts.items():
        days = [np.repeat(np.arange(28), draw()) for _ in range(COPIES)]
        rows = pl.DataFrame(
            {
                "user_id": np.repeat([f"u{n}" for n in range(COPIES)], [len(day) for day in days]),
                "day": pl.Series(np.concatenate(days)),
                "item_id": pl.Series(np.concatenate([np.arange(len(day)) % 400 for day in days])),
                "event_type": "view",
            }
        ).with_columns(day=pl.lit(OPENS) + pl.duration(days="day"))
        slow_bots[name] = find_slow_bots(rows, SLOW_BOTS).height
    return slow_bots


def shared(rows: pl.DataFrame) -> tuple[int, float, int]:
    """A quarter of the shop's events, purchases too, under the id ``0``.

    Returns on how many days it is rejected as pseudo_user, its share of the events, and how many
    other ids are.
    """
    quarter = pl.col("label").is_in(["human"]) & (pl.int_range(pl.len()) % 3 == 0)
    renamed = rows.with_columns(user_id=pl.when(quarter).then(pl.lit("0")).otherwise("user_id"))
    rejected = filter_bots(renamed.lazy(), BOTS).rejected.filter(reason="pseudo_user").collect()
    others = rejected.filter(pl.col("user_id") != "0")["user_id"].n_unique()
    days = rejected.filter(user_id="0")["recorded_at"].dt.date().n_unique()
    return days, renamed.filter(user_id="0").height / renamed.height, others


def uci(path: Path, report: Report) -> None:
    """The UCI data with its lines as events of each type; lines without a customer get the id 0."""
    moment = pl.col("InvoiceDate").str.to_datetime(time_zone="UTC")
    customer = pl.col("Customer ID").cast(pl.Int64).cast(pl.String).fill_null("0")
    lines = pl.read_parquet(path).select(
        user_id=customer, item_id="StockCode", event_time=moment, recorded_at=moment
    )
    key = ("user_id", pl.col("recorded_at").dt.date().alias("day"))
    large = lines.filter(pl.col("user_id") != "0").group_by(key).len().filter(pl.col("len") > 150)
    table = shares(report, "bots, UCI", "customer-days above 150 lines, kept")
    for event_type in ("purchase", "checkout", "cart", "view"):
        rows = lines.with_columns(event_type=pl.lit(event_type)).with_row_index("row").lazy()
        rejected = filter_bots(rows, BOTS).rejected.select(*key).unique().collect()
        lost = large.join(rejected, on=["user_id", "day"], how="semi").height
        add_share(table, f"as {event_type}s", large.height - lost, large.height)
    history = lines.select(
        pl.col("recorded_at").dt.date().alias("day"),
        "user_id",
        "item_id",
        event_type=pl.lit("purchase"),
    )
    slow = find_slow_bots(history, SLOW_BOTS).select("user_id", "reason", "value").rows()
    print("slow bots of the year:", slow)


def shares(report: Report, name: str, heading: str) -> Table:
    columns = {heading: "", "n": ",", "of": ",", "share": ".1%", "95 %, Wilson": ""}
    return report.table(name, columns)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--uci", type=Path)


def run(options: argparse.Namespace, report: Report) -> None:
    days, seeds = (5, options.seeds[:1]) if options.quick else (DAYS, options.seeds)
    shops = {seed: shop(seed, days) for seed in seeds}
    table = shares(report, "bots, scrapers", f"the demo shop's scrapers, {days} days")
    counts = np.array([planted(rows) for rows in shops.values()])
    right, scrapers, rejected = counts.sum(axis=0).tolist()
    add_share(table, "precision", right, rejected)
    add_share(table, "recall", right, scrapers)
    for name, kinds in (("harder robots", ROBOTS), ("people", PEOPLE)):
        users = filter_bots(cast(kinds), BOTS).rejected.select("user_id").unique().collect()
        table = shares(report, f"bots, {name}", f"{name}, rejected")
        for kind in kinds:
            prefix = users["user_id"].str.starts_with(f"{kind}/")
            add_share(table, kind, int(prefix.sum()), COPIES)
    table = shares(report, "bots, slow", "below every daily limit for four weeks, found")
    for kind, count in weeks(np.random.default_rng(12)).items():
        add_share(table, kind, count, COPIES)
    caught, part, others = shared(shops[seeds[0]])
    table = shares(report, "bots, shared id", f"an id with {part:.0%} of all events, rejected")
    add_share(table, f"days; {others} other ids were rejected", caught, days)
    with tempfile.TemporaryDirectory() as folder:
        million, file = pl.concat(shops.values()).head(1_000_000), Path(folder, "rows.parquet")
        million.drop("row").with_row_index("row").write_parquet(file)
        seconds = fastest(lambda: filter_bots(pl.scan_parquet(file), BOTS), 5)
    report.table("bots, speed", {"rows": ",", "seconds": ".2f"}).add(million.height, seconds)
    if options.uci:
        uci(options.uci, report)
