"""What a run's day and window look like beside the four weeks before: what the gate's data guards judge.

Metrics alone hardly see a fifth of robot rows, or half of the history gone: every model is measured on the same data.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from statistics import median

import polars as pl
from pydantic import BaseModel, ConfigDict

USUAL_DAYS = 28
JUDGED = ("align_schema", "fix_types", "filter_crawlers", "filter_bots")
_RATIOS = ("rows_per_user", "repeats")
_ENOUGH = 7  # days, of which a median says what is usual


class DayProfile(BaseModel):
    """A day beside the 28 days before; None where fewer than seven of those are known.

    rows, users, items : of the day, in the history · usual_rows, … : the median over the days before that have rows
    rows_per_user · repeats : rows for each pair of user and item · spread_… : how many times the median, or what part of it, one
        of the days before has at the utmost, at least 1
    gap : days from the last day before that has rows to this one · usual_gap : the longest between two such days
    window_rows, window_days : of the whole window
    quarantine_share, bot_share : of the rows that came in, what the contract and what the filters of robots rejected
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    users: int
    items: int
    rows_per_user: float | None
    repeats: float | None
    usual_rows: float | None
    usual_users: float | None
    usual_items: float | None
    usual_rows_per_user: float | None
    usual_repeats: float | None
    spread_rows_per_user: float | None
    spread_repeats: float | None
    gap: int | None
    usual_gap: int | None
    window_rows: int
    window_days: int
    quarantine_share: float | None
    usual_quarantine_share: float | None
    bot_share: float | None
    usual_bot_share: float | None


def profile_day(
    events: pl.DataFrame, day: date, window_start: date, shares: Mapping[date, Mapping[str, float]]
) -> DayProfile:
    """The facts of a run's day.

    events : the window's history rows: day, user_id, item_id
    shares : by day, what `rejected_shares` found of the run of that day; days that nobody ran are missing
    """
    first = day - timedelta(days=USUAL_DAYS)
    of = (
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
    today, before = of.filter(pl.col("day") == day), of.filter(pl.col("day") < day)
    enough = before.height >= _ENOUGH
    days = before["day"].to_list()
    gaps = before["day"].diff().dt.total_days().drop_nulls()
    found: dict[str, float | None] = {}
    for name in ("rows", "users", "items", "rows_per_user", "repeats"):
        found[name] = today[name][0] if today.height else (None if name in _RATIOS else 0)
        found[f"usual_{name}"] = before[name].median() if enough else None  # type: ignore[assignment]
    for name in _RATIOS:
        values = before[name].to_numpy()
        found[f"spread_{name}"] = (
            max(values.max() / median(values), median(values) / values.min()) if enough else None
        )
    for name in ("quarantine_share", "bot_share"):
        earlier = [share[name] for at, share in shares.items() if first <= at < day]
        found[name] = shares[day][name] if day in shares else None
        found[f"usual_{name}"] = median(earlier) if len(earlier) >= _ENOUGH else None
    return DayProfile.model_validate(
        {
            **found,
            "gap": (day - days[-1]).days if enough else None,
            "usual_gap": int(gaps.max()) if enough else None,  # type: ignore[arg-type]
            "window_rows": events.filter(pl.col("day").is_between(window_start, day)).height,
            "window_days": (day - window_start).days + 1,
        }
    )


def rejected_shares(figures: Mapping[str, Mapping[str, int]]) -> dict[str, float] | None:
    """Of the rows that a run delivered, the share its steps rejected, from their figures by step; None when it delivered none.

    figures : of the steps `JUDGED`, each with ``rows_in`` and ``rejected``
    """
    delivered = figures["align_schema"]["rows_in"]
    if not delivered:
        return None
    rejected = {step: found["rejected"] / delivered for step, found in figures.items()}
    return {
        "quarantine_share": rejected["align_schema"] + rejected["fix_types"],
        "bot_share": rejected["filter_crawlers"] + rejected["filter_bots"],
    }
