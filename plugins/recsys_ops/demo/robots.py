"""The demo shop's robots on a day: crawlers, which say what they are, and undeclared scrapers."""

from datetime import date

import numpy as np
import polars as pl

from recsys_ops.demo import words
from recsys_ops.demo.shop import Shop, items
from recsys_ops.demo.visits import LINE

_LINES_PER_SCRAPER = 450


def crawlers(shop: Shop, day: date) -> pl.DataFrame:
    """Views by declared robots, all day, of all items; columns as in `visits.visits`."""
    rng = shop.rng("crawlers", day)
    count = int(rng.poisson(shop.size.events_per_day * shop.dirt.crawlers))
    robot = rng.integers(0, len(words.CRAWLERS), count)
    return _views(
        shop,
        day,
        item=rng.integers(0, len(items(shop, day).ids), count),
        at=np.sort(rng.integers(600, 86_000, count)),
        delay=rng.integers(1, 20, count),
        user_agent=pl.Series(words.CRAWLERS)[robot],
        visitor=robot,
        label="crawler",
    )


def scrapers(shop: Shop, day: date) -> pl.DataFrame:
    """Views by undeclared robots with a browser's user agent; they visit all items and never buy.

    Slow ones take 23 hours at a steady pace. Others keep office hours, with gaps as uneven as a
    person's. In shops of at least 4,000 rows a day some are fast: 850 products in 54 minutes.
    """
    rng = shop.rng("scrapers", day)
    number = int(np.ceil(shop.size.events_per_day * shop.dirt.scrapers / _LINES_PER_SCRAPER))
    kind = rng.choice(["fast", "slow", "office"], number, p=[0.4, 0.35, 0.25])
    if shop.size.events_per_day < 4_000:
        kind[kind == "fast"] = "slow"
    length = np.where(kind == "fast", 850, min(330, shop.size.events_per_day // 3))
    hours = np.select([kind == "fast", kind == "slow"], [0.9, 23.0], rng.uniform(9, 10, number))
    start = np.select(
        [kind == "fast", kind == "slow"],
        [rng.integers(1, 22, number) * 3600 + 90, rng.integers(300, 1_500, number)],
        rng.integers(7 * 3600, 9 * 3600, number),
    )
    robot = np.repeat(np.arange(number), length)
    step = np.arange(len(robot)) - np.repeat(np.cumsum(length) - length, length)
    unevenness = np.where(kind == "office", 0.9, 0.05)[robot]
    at = start[robot] + (hours * 3600 / length)[robot] * (
        step + rng.uniform(-1, 1, len(robot)) * unevenness
    )
    first_item = rng.integers(0, len(items(shop, day).ids), number)
    return _views(
        shop,
        day,
        item=(first_item[robot] + step) % len(items(shop, day).ids),
        at=at.astype(np.int64),
        delay=np.full(len(robot), 2),
        user_agent=pl.Series(words.BROWSERS)[rng.integers(0, 13, number)[robot]],
        visitor=100 + robot,
        label="scraper",
    )


def _views(
    shop: Shop,
    day: date,
    *,
    item: np.ndarray,
    at: np.ndarray,
    delay: np.ndarray,
    user_agent: pl.Series,
    visitor: np.ndarray,
    label: str,
) -> pl.DataFrame:
    catalogue = items(shop, day)
    return (
        pl.DataFrame(
            {
                "event": np.arange(len(item)),
                "visitor": visitor,
                "item_id": catalogue.ids[item],
                "action": pl.repeat("view", len(item), eager=True),
                "at": at,
                "delay": delay,
                "quantity": np.ones(len(item), np.int64),
                "price": catalogue.price[item],
                "user_agent": user_agent,
                "client": np.zeros(len(item), np.int64),
                "clock": np.zeros(len(item), np.int64),
                "label": pl.repeat(label, len(item), eager=True),
            }
        )
        .with_columns(
            pl.format("anon-{}-{}", pl.lit(f"{day.toordinal():x}"), "visitor").alias("user_id"),
            pl.format("198.51.100.{}", pl.col("visitor") % 250 + 1).alias("ip"),
        )
        .select(LINE)
    )
