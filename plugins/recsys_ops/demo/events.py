"""The table `events` of a day as the shop's database has it, with the labelled dirt.

Every client writes columns and values in its own way.
"""

from datetime import UTC, date, datetime, time

import numpy as np
import polars as pl

from recsys_ops.demo.robots import crawlers, scrapers
from recsys_ops.demo.shop import Dirt, Shop
from recsys_ops.demo.visits import visits

LINES_A_DAY = 10_000_000  # line ids of day n start at n times this number

COLUMNS = (
    "line_id", "recorded_at", "event_id", "event_time", "user_id", "customer_ref", "product_id",
    "sku", "action", "quantity", "price", "user_agent", "ip", "app_version",
)  # fmt: skip
TRUTH = ("label", "detail", "visible_on")
CORRUPTIONS = (
    "missing_user", "null_word_user", "missing_item", "bad_quantity", "bad_time", "bad_price",
    "alias_conflict", "unknown_action",
)  # fmt: skip


def day_events(shop: Shop, day: date) -> pl.DataFrame:
    """The rows that the database records on a day, in the order of recording: COLUMNS, then TRUTH.

    All of COLUMNS but `line_id` and `recorded_at` are text. `label` says what the row is, `detail`
    how it is corrupt. `visible_on` is the day on which a reader of the database first sees the row:
    a late row becomes visible one or two days after its recording.
    """
    rows = _number_events([visits(shop, day), crawlers(shop, day), scrapers(shop, day)])
    dirty = _add_dirt(shop.rng("dirt", day), shop.dirt, rows)
    line_id = (day.toordinal() * LINES_A_DAY + pl.int_range(pl.len())).alias("line_id")
    return _as_clients_write(dirty, day).select(line_id, *COLUMNS[1:], *TRUTH)


def _number_events(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The parts as one table, with event numbers that are unique over all parts."""
    ends = np.cumsum(
        [part.select(pl.col("event").max().fill_null(-1) + 1).item() for part in parts]
    )
    return pl.concat(
        [
            parts[0],
            *(
                part.with_columns(pl.col("event") + end)
                for part, end in zip(parts[1:], ends, strict=False)
            ),
        ]
    )


def _add_dirt(rng: np.random.Generator, dirt: Dirt, rows: pl.DataFrame) -> pl.DataFrame:
    """Make some of the customers' rows corrupt, future, late or duplicate, each at most one."""
    draw = rng.random(len(rows))
    pick = rng.integers(0, 60, len(rows))
    corruption = rng.integers(0, len(CORRUPTIONS), len(rows))
    fates = ("corrupt", "future", "late", "duplicate")
    fate = np.searchsorted(
        np.cumsum([dirt.corrupt, dirt.future, dirt.late, dirt.duplicate]), draw, side="right"
    )
    dirty = rows.with_columns(
        pl.when(label="human").then(pl.Series([*fates, None])[fate]).alias("fate"),
        pl.Series("pick", pick),
        pl.Series("detail", pl.Series(CORRUPTIONS)[corruption]),
        copy=pl.lit(0),
    ).with_columns(
        pl.when(pl.col("fate").is_in(["corrupt", "future"]))
        .then("fate")
        .otherwise("label")
        .alias("label"),
        pl.when(fate="corrupt").then("detail").alias("detail"),
        pl.when(fate="future")
        .then(-86_400 * (2 + pl.col("pick") % 20))
        .otherwise("delay")
        .alias("delay"),
        pl.when(fate="late").then(1 + pl.col("pick") % 2).otherwise(0).alias("days_late"),
    )
    # of two copies of a row the later one is to be kept
    again = pl.col("pick") % 2
    copies = dirty.filter(fate="duplicate").with_columns(
        pl.col("at") + again, pl.col("delay") + again, copy=pl.lit(1)
    )
    dirty = dirty.with_columns(
        pl.when(fate="duplicate").then(pl.lit("duplicate")).otherwise("label").alias("label")
    )
    return pl.concat([dirty, copies]).sort("at", "event", "copy", maintain_order=True)


def _as_clients_write(rows: pl.DataFrame, day: date) -> pl.DataFrame:
    """The rows as their clients write them.

    Old apps fill other columns and write in capitals; apps in between fill both columns and pad
    numbers with blanks.
    """
    start = pl.lit(datetime.combine(day, time(), UTC))
    moment = start + pl.duration(seconds=pl.col("at") - pl.col("delay"))
    client, clock, pick = pl.col("client"), pl.col("clock"), pl.col("pick")
    user = (
        pl.when(detail="missing_user")
        .then(_one_of(pick, None, ""))
        .when(detail="null_word_user")
        .then(_one_of(pick, "null", "None", "nan"))
        .otherwise("user_id")
    )
    item = pl.when(detail="missing_item").then(_one_of(pick, None, "")).otherwise("item_id")
    other_user = (
        pl.when(detail="alias_conflict").then(pl.format("c{}", pick)).when(client > 0).then(user)
    )
    number = (
        pl.when(client == 1)
        .then(pl.format(" {} ", "quantity"))
        .otherwise(pl.col("quantity").cast(pl.String))
    )
    return rows.select(
        (start + pl.duration(seconds="at")).alias("recorded_at"),
        pl.format("{}-{}", pl.lit(f"{day:%y%m%d}"), pl.col("event")).alias("event_id"),
        pl.when(detail="bad_time")
        .then(_one_of(pick, "2026-02-30T10:00:00Z", "yesterday", None))
        .when(clock == 0)
        .then(moment.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        .when(clock == 1)
        .then((moment + pl.duration(hours=2)).dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"))
        .when(clock == 2)
        .then(moment.dt.epoch("s").cast(pl.String))
        .otherwise(moment.dt.epoch("ms").cast(pl.String))
        .fill_null(moment.dt.strftime("%Y-%m-%d %H:%M:%S"))  # the third bad time has no time zone
        .alias("event_time"),
        pl.when((client < 2) | (pl.col("detail") == "alias_conflict")).then(user).alias("user_id"),
        other_user.alias("customer_ref"),
        pl.when(client < 2).then(item).alias("product_id"),
        pl.when(client > 0).then(item).alias("sku"),
        pl.when(detail="unknown_action")
        .then(pl.lit("swipe"))
        .when(client == 2)
        .then(pl.col("action").replace("cart", "add_to_cart").str.to_uppercase())
        .otherwise("action")
        .alias("action"),
        pl.when(detail="bad_quantity")
        .then(_one_of(pick, "12.5", "0x10", "1_000", "-3"))
        .otherwise(number)
        .alias("quantity"),
        pl.when(detail="bad_price")
        .then(pl.lit("abc"))
        .when((client < 2) | (pl.col("action") != "view"))
        .then(pl.col("price").cast(pl.Decimal(12, 2)).cast(pl.String))
        .alias("price"),
        "user_agent",
        "ip",
        client.replace_strict({0: "3.2.0", 1: "2.0.4", 2: "1.8.1"}, return_dtype=pl.String).alias(
            "app_version"
        ),
        "label",
        "detail",
        (pl.lit(day) + pl.duration(days="days_late")).alias("visible_on"),
    )


def _one_of(pick: pl.Expr, *texts: str | None) -> pl.Expr:
    chosen = pl.lit(None, pl.String)
    for index, text in enumerate(texts):
        chosen = pl.when(pick % len(texts) == index).then(pl.lit(text, pl.String)).otherwise(chosen)
    return chosen
