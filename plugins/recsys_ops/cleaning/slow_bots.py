"""Slow bots and shared ids: users who behave over weeks as no person does."""

from dataclasses import dataclass

import polars as pl

from recsys_ops.settings import CONVERSIONS, SlowBotSettings

SIGNALS = ("breadth", "every_day", "steady")
# in a window with fewer users, a large share of the events is nothing unusual
USERS = 50


@dataclass(frozen=True)
class Window:
    """A window of the history.

    events : all rows of its days, in the columns of the history
    human_events : the rows without those of slow bots; a model learns from these
    slow_bots : user_id, reason, column, value: the users left out, as `find_slow_bots` gives them
    """

    events: pl.DataFrame
    human_events: pl.DataFrame
    slow_bots: pl.DataFrame


def find_slow_bots(events: pl.DataFrame, settings: SlowBotSettings) -> pl.DataFrame:
    """The users to leave out of a window of the history.

    events : DataFrame, (n_rows, at least ``day``, ``user_id``, ``item_id``, ``event_type``), the
        ids as String or as Enum. Memory grows with the users and their days, and with the rows of
        the few suspects.

    Only users with events on at least `min_days` days are examined. ``slow_bot``: the user never
    put anything into a cart, checked out or bought, has at least `min_events` events, and shows at
    least `min_signals` of three signs, which ``value`` lists: ``breadth`` (distinct items),
    ``every_day`` (share of days with events from the first to the last), ``steady`` (standard
    deviation over mean of the events per day). ``pseudo_user``: the id has a share of all events
    that no person has; it may have purchases.

    Returns a DataFrame, (n_left_out, 4), ``user_id``, ``reason``, ``column`` (null), ``value``,
    each user once.
    """
    day, per_day = pl.col("day"), pl.col("events")
    daily = (
        events.lazy()
        .group_by("user_id", "day")
        .agg(events=pl.len(), converts=pl.col("event_type").is_in(CONVERSIONS).any())
        .group_by("user_id")
        .agg(
            events=per_day.sum(),
            converts=pl.col("converts").any(),
            days=pl.len(),
            active=pl.len() / ((day.max() - day.min()).dt.total_days() + 1),
            variation=per_day.std() / per_day.mean(),
        )
        .with_columns(share=per_day / per_day.sum(), users=pl.len())
        .filter(pl.col("days") >= settings.min_days)
        .collect(engine="streaming")
    )
    shared = (pl.col("share") >= settings.pseudo_user_share) & (pl.col("users") >= USERS)
    pseudo_users = daily.filter(shared).select(
        "user_id",
        reason=pl.lit("pseudo_user"),
        column=pl.lit(None, pl.String),
        value=pl.format("{} % of the window's events", (100 * pl.col("share")).round(1)),
    )
    suspects = daily.filter(~shared, ~pl.col("converts"), per_day >= settings.min_events)
    items = (
        events.lazy()
        .filter(pl.col("user_id").is_in(suspects["user_id"].implode()))
        .group_by("user_id")
        .agg(items=pl.col("item_id").n_unique())
        .collect(engine="streaming")
    )
    signs = suspects.join(items, on="user_id").select(
        "user_id",
        breadth=pl.col("items") > settings.max_items,
        every_day=pl.col("active") > settings.max_active_share,
        steady=pl.col("variation") < settings.min_daily_variation,
    )
    bots = signs.filter(pl.sum_horizontal(SIGNALS) >= settings.min_signals).select(
        "user_id",
        reason=pl.lit("slow_bot"),
        column=pl.lit(None, pl.String),
        value=pl.concat_str(
            [pl.when(name).then(pl.lit(name)) for name in SIGNALS], separator=" ", ignore_nulls=True
        ),
    )
    return (
        pl.concat([pseudo_users, bots])
        .with_columns(pl.col("user_id").cast(pl.String))
        .sort("user_id")
    )


def without_slow_bots(events: pl.DataFrame, bots: SlowBotSettings) -> Window:
    """Find the slow bots of a window and leave out their rows.

    events : the history rows of the window: at least day, user_id, item_id, event_type; the ids
        as String or as Enum
    """
    slow_bots = find_slow_bots(events, bots)
    bot_ids = slow_bots["user_id"].cast(events["user_id"].dtype)
    human_events = events.filter(~events["user_id"].is_in(bot_ids.implode()))
    return Window(events, human_events, slow_bots)
