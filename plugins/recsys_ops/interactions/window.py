"""The window of history that a model learns from, without the events of slow bots."""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from recsys_ops.cleaning.slow_bots import find_slow_bots
from recsys_ops.settings import ConfidenceSettings, SlowBotSettings


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


def first_window_day(day: date, confidence: ConfidenceSettings) -> date:
    """The first of the ``window_days`` days that end with `day`."""
    return day - timedelta(days=confidence.window_days - 1)


def without_slow_bots(events: pl.DataFrame, bots: SlowBotSettings) -> Window:
    """Find the slow bots of a window and leave out their rows.

    events : the history rows of the window: at least day, user_id, item_id, event_type; the ids
        as String or as Enum
    """
    slow_bots = find_slow_bots(events, bots)
    bot_ids = slow_bots["user_id"].cast(events["user_id"].dtype)
    human_events = events.filter(~events["user_id"].is_in(bot_ids.implode()))
    return Window(events, human_events, slow_bots)
