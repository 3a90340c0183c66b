"""The day profile: a run's day and window beside the four weeks before, for the gate's data guards.

Metrics alone hardly show that a fifth of the rows are robots', or that half of the history is lost,
because every model is evaluated on the same data.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from statistics import median

import polars as pl
from pydantic import BaseModel, ConfigDict

USUAL_DAYS = 28
_MIN_DAYS = 7  # with fewer days before, nothing is called usual


class Figure(BaseModel):
    """A figure of the day beside the same figure of the 28 days before.

    value : of the day; None where it has none
    usual : the median of the days before, of a gap the longest; None with fewer than seven days
    spread : how far the most unusual of those days is from the median, as a factor ≥ 1; only for
        the ratios `rows_per_user` and `repeats`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int | float | None
    usual: int | float | None
    spread: float | None = None


class DayProfile(BaseModel):
    """The figures of a day, as they are stored in ``metrics.json`` under ``data``.

    rows, users, items : of the day, in the history; only earlier days with rows count for `usual`
    rows_per_user : rows / users
    repeats : rows / pairs of user and item
    gap : days from the last earlier day that has rows to this one; usual is the longest gap between
        two neighbouring days that have rows
    quarantine_share, bot_share : the shares of the delivered rows that were rejected for their
        values, and as those of crawlers and bots
    window_rows, window_days : of the whole window
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Figure
    users: Figure
    items: Figure
    rows_per_user: Figure
    repeats: Figure
    gap: Figure
    quarantine_share: Figure
    bot_share: Figure
    window_rows: int
    window_days: int


def profile_day(
    events: pl.DataFrame, day: date, window_start: date, shares: Mapping[date, Mapping[str, float]]
) -> DayProfile:
    """The profile of a run's day.

    events : the window's history rows: day, user_id, item_id
    shares : by day, as `ingest.quarantine.rejected_shares` returns them
    """
    first = day - timedelta(days=USUAL_DAYS)
    by_day = (
        events.lazy()
        .filter(pl.col("day").is_between(max(first, window_start), day))
        .group_by("day")
        .agg(
            rows=pl.len(),
            users=pl.col("user_id").n_unique(),
            items=pl.col("item_id").n_unique(),
            pairs=pl.struct("user_id", "item_id").n_unique(),
        )
        .with_columns(
            rows_per_user=pl.col("rows") / pl.col("users"), repeats=pl.col("rows") / pl.col("pairs")
        )
        .sort("day")
        .collect()
    )
    today, before = by_day.filter(pl.col("day") == day), by_day.filter(pl.col("day") < day)
    earlier_shares = [share for run_day, share in shares.items() if first <= run_day < day]

    def count(name: str) -> Figure:
        value = today[name][0] if today.height else 0
        return Figure(value=value, usual=_usual(before[name].to_list()))

    def ratio(name: str) -> Figure:
        value, values = today[name][0] if today.height else None, before[name].to_list()
        return Figure(value=value, usual=_usual(values), spread=_spread(values))

    def share(name: str) -> Figure:
        value = shares[day][name] if day in shares else None
        return Figure(value=value, usual=_usual([earlier[name] for earlier in earlier_shares]))

    return DayProfile(
        rows=count("rows"),
        users=count("users"),
        items=count("items"),
        rows_per_user=ratio("rows_per_user"),
        repeats=ratio("repeats"),
        gap=_gap(before["day"].to_list(), day),
        quarantine_share=share("quarantine_share"),
        bot_share=share("bot_share"),
        window_rows=events.filter(pl.col("day").is_between(window_start, day)).height,
        window_days=(day - window_start).days + 1,
    )


def _usual(values: Sequence[float]) -> float | None:
    return float(median(values)) if len(values) >= _MIN_DAYS else None


def _spread(values: Sequence[float]) -> float | None:
    if len(values) < _MIN_DAYS:
        return None
    return max(max(values) / median(values), median(values) / min(values))


def _gap(days_before: Sequence[date], day: date) -> Figure:
    """days_before : those that have rows, ascending"""
    if len(days_before) < _MIN_DAYS:
        return Figure(value=None, usual=None)
    gaps = [(later - earlier).days for earlier, later in pairwise(days_before)]
    return Figure(value=(day - days_before[-1]).days, usual=max(gaps))
