"""Undeclared robots: users who behave as no person does."""

import polars as pl

from recsys_ops.cleaning.cleaned import Cleaned, split
from recsys_ops.settings import BotSettings

CONVERSIONS = ("cart", "checkout", "purchase")
# a longer gap ends a visit and says nothing about the rhythm within one
VISIT_MINUTES = 30
SIGNALS = ("rate", "breadth", "hours", "regular_gaps", "no_conversions")


def filter_bots(frame: pl.DataFrame, settings: BotSettings) -> Cleaned:
    """Reject all events of users who show at least `min_signals` signs of a robot, as ``bot``; ``value`` lists the signs.

    frame : DataFrame, (n_rows, canonical event frame). A user is judged on these rows alone, by the clients' times in UTC.
    The signs: ``rate`` (events a minute in the busiest clock hour), ``breadth`` (distinct items on one day), ``hours`` (clock
    hours with events on one day), ``regular_gaps`` (standard deviation over mean of the gaps within visits, where at least half
    of `min_events` gaps are), ``no_conversions`` (nothing put into a cart, checked out or bought). A user with fewer events than
    `min_events`, or with a purchase, is never rejected.
    """
    judged = frame.select("user_id", "item_id", "event_type", "event_time").filter(
        (pl.len().over("user_id") >= settings.min_events) & ~(pl.col("event_type") == "purchase").any().over("user_id")
    )
    signs = _signs(judged, settings)
    bots = signs.filter(pl.sum_horizontal(SIGNALS) >= settings.min_signals).select(
        "user_id",
        bot=pl.concat_str([pl.when(name).then(pl.lit(name)) for name in SIGNALS], separator=" ", ignore_nulls=True),
    )
    found = frame.select("user_id").join(bots, on="user_id", how="left", maintain_order="left")
    marks = found.select(
        reason=pl.when(pl.col("bot").is_not_null()).then(pl.lit("bot")),
        column=pl.lit(None, pl.String),
        value="bot",
    )
    notes: dict[str, object] = {
        "users_judged": signs.height,
        "users_rejected": bots.height,
        "signs": {name: int(signs[name].sum()) for name in SIGNALS},
    }
    return split(frame, marks, notes=notes)


def _signs(judged: pl.DataFrame, settings: BotSettings) -> pl.DataFrame:
    """One row a user: ``user_id`` and a boolean for every signal."""
    time, day = pl.col("event_time"), pl.col("event_time").dt.date()
    hourly = judged.group_by("user_id", hour=time.dt.truncate("1h")).agg(events=pl.len())
    busiest = hourly.group_by("user_id").agg(rate=pl.col("events").max() / 60)
    hours = hourly.group_by("user_id", day=pl.col("hour").dt.date()).agg(hours=pl.len())
    most_hours = hours.group_by("user_id").agg(pl.col("hours").max())
    items = judged.group_by("user_id", day=day).agg(items=pl.col("item_id").n_unique())
    most_items = items.group_by("user_id").agg(pl.col("items").max())
    gap = time.diff().over("user_id").dt.total_microseconds()
    gaps = (
        judged.sort("user_id", "event_time")
        .select("user_id", gap=gap)
        .filter(pl.col("gap") <= VISIT_MINUTES * 60_000_000)
        .group_by("user_id")
        .agg(gaps=pl.len(), variation=pl.col("gap").std() / pl.col("gap").mean())
    )
    users = judged.group_by("user_id").agg(no_conversions=~pl.col("event_type").is_in(CONVERSIONS).any())
    for measured in (busiest, most_hours, most_items, gaps):
        users = users.join(measured, on="user_id", how="left")
    regular = (pl.col("gaps") >= settings.min_events // 2) & (pl.col("variation") < settings.max_gap_variation)
    return users.select(
        "user_id",
        rate=pl.col("rate") > settings.max_events_per_minute,
        breadth=pl.col("items") > settings.max_items,
        hours=pl.col("hours") > settings.max_hours_active,
        regular_gaps=regular.fill_null(False),
        no_conversions="no_conversions",
    )
