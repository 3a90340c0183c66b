"""Bots and shared ids: users who behave on a day as no person does."""

from datetime import timedelta

import polars as pl

from recsys_ops.cleaning.result import Cleaned, split_rejected
from recsys_ops.settings import CONVERSIONS, BotSettings

SIGNALS = ("rate", "breadth", "hours", "visit", "regular_gaps", "no_conversions")
# a longer gap ends a visit; the rhythm is measured within visits
VISIT_GAP = timedelta(minutes=30)
# on a day with fewer users, a large share of the events is nothing unusual
USERS_A_DAY = 50
# a large customer's order can be a fifth of a small shop's day
PSEUDO_USER_EVENTS = 500
KEY = ("user_id", "day")


def filter_bots(events: pl.LazyFrame, settings: BotSettings) -> Cleaned:
    """Reject the events of a user and day that are not one person's: ``bot`` or ``pseudo_user``.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows with the users
        of each day, and by 25 bytes for each row of users with `min_events` and no purchase.

    Each UTC day of `recorded_at` is examined by itself, so the result does not depend on the other
    days in the frame. Rows of one user at one moment are one event (a basket).

    ``bot``: the user shows at least `min_signals` signs of a robot, which ``value`` lists: ``rate``
    (events in the busiest minute, or on the day), ``breadth`` (distinct items), ``hours`` (hours of
    the clock with events), ``visit`` (the longest time without a pause of 30 minutes),
    ``regular_gaps`` (interquartile range over median of the gaps within visits, if there are at
    least half as many gaps as `min_events`), ``no_conversions`` (nothing put into a cart, checked
    out or bought). A user with fewer events than `min_events`, or with a purchase, is no bot on
    that day.

    ``pseudo_user``: the id has so large a share of the day's events that many people must use it.
    It may have purchases; ``value`` is the share.
    """
    day = pl.col("recorded_at").dt.date().alias("day")
    buys = (pl.col("event_type") == "purchase").any()
    user_days = (
        events.group_by("user_id", day).agg(events=pl.len(), buys=buys).collect(engine="streaming")
    )
    pseudo_users = _pseudo_users(user_days, settings)
    suspects = (
        user_days.filter(pl.col("events") >= settings.min_events, ~pl.col("buys"))
        .join(pseudo_users, on=KEY, how="anti")
        .select(KEY)
        .with_row_index("suspect")
    )
    rows = (
        events.select("user_id", day, "item_id", "event_type", "event_time")
        .join(suspects.lazy(), on=KEY)
        .select(
            "suspect",
            "event_time",
            item=pl.col("item_id").hash(),
            converts=pl.col("event_type").is_in(CONVERSIONS),
        )
        .collect(engine="streaming")
    )
    signs = suspects.join(_signs(rows, settings), on="suspect")
    bots = signs.filter(pl.sum_horizontal(*SIGNALS) >= settings.min_signals)
    rejected_bots = bots.select(
        *KEY,
        reason=pl.lit("bot"),
        value=pl.concat_str(
            [pl.when(name).then(pl.lit(name)) for name in SIGNALS], separator=" ", ignore_nulls=True
        ),
    )
    rejections = (
        events.select("row", "user_id", day)
        .join(pl.concat([rejected_bots, pseudo_users]).lazy(), on=KEY)
        .select("row", "reason", "value", column=pl.lit(None, pl.String))
        .collect(engine="streaming")
    )
    notes: dict[str, object] = {
        "user_days_examined": signs.height,
        "bot_days": bots.height,
        "pseudo_user_days": pseudo_users.height,
        "signs": {name: int(signs[name].sum()) for name in SIGNALS},
    }
    return split_rejected(events, rejections, notes)


def _pseudo_users(user_days: pl.DataFrame, settings: BotSettings) -> pl.DataFrame:
    """``user_id, day, reason, value``."""
    share = pl.col("events") / pl.col("events").sum().over("day")
    return (
        user_days.with_columns(share=share, users=pl.len().over("day"))
        .filter(
            pl.col("share") >= settings.pseudo_user_share,
            pl.col("events") >= PSEUDO_USER_EVENTS,
            pl.col("users") >= USERS_A_DAY,
        )
        .select(
            *KEY,
            reason=pl.lit("pseudo_user"),
            value=pl.format("{} % of the day's events", (100 * pl.col("share")).round(1)),
        )
    )


def _signs(rows: pl.DataFrame, settings: BotSettings) -> pl.DataFrame:
    """One row for each suspect: ``suspect`` and a boolean for every sign.

    rows : DataFrame, (n_rows, 4), ``suspect``, ``item``, ``event_time``, ``converts``
    """
    gap = pl.col("event_time").diff()
    same = pl.col("suspect") == pl.col("suspect").shift()
    moments = (
        rows.select("suspect", "event_time")
        .unique()
        .sort("suspect", "event_time")
        .with_columns(gap=pl.when(same, gap <= VISIT_GAP).then(gap.dt.total_microseconds()))
        .with_columns(visit=pl.col("gap").is_null().cum_sum())
    )
    length = pl.col("event_time").max() - pl.col("event_time").min()
    visits = (
        moments.group_by("suspect", "visit")
        .agg(length=length)
        .group_by("suspect")
        .agg(pl.col("length").max())
    )
    minute = pl.col("event_time").dt.truncate("1m")
    minutes = (
        moments.group_by("suspect", minute=minute)
        .agg(moments=pl.len())
        .group_by("suspect")
        .agg(busiest=pl.col("moments").max())
    )
    gaps = pl.col("gap")
    paces = moments.group_by("suspect").agg(
        moments=pl.len(),
        hours=pl.col("event_time").dt.hour().n_unique(),
        gaps=gaps.count(),
        spread=(gaps.quantile(0.75) - gaps.quantile(0.25)) / gaps.median(),
    )
    totals = rows.group_by("suspect").agg(
        items=pl.col("item").n_unique(), converts=pl.col("converts").any()
    )
    measured = (
        totals.join(paces, on="suspect").join(visits, on="suspect").join(minutes, on="suspect")
    )
    regular = (pl.col("gaps") >= settings.min_events // 2) & (
        pl.col("spread") < settings.min_gap_spread
    )
    return measured.select(
        "suspect",
        rate=(pl.col("busiest") > settings.max_events_per_minute)
        | (pl.col("moments") > settings.max_events_per_day),
        breadth=pl.col("items") > settings.max_items,
        hours=pl.col("hours") > settings.max_hours_active,
        visit=pl.col("length") > timedelta(hours=settings.max_visit_hours),
        regular_gaps=regular.fill_null(False),
        no_conversions=~pl.col("converts"),
    )
