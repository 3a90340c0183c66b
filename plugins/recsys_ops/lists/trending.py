"""Trending: the items with more users in the last days than expected from the weeks before."""

from datetime import date, timedelta

import polars as pl

from recsys_ops.settings import ListsSettings

BASE_DAYS = 28
TRENDING_ITEMS = 100


def trending(
    events: pl.DataFrame, eligible: pl.Series, day: date, settings: ListsSettings
) -> pl.DataFrame:
    """The at most 100 eligible items that exceed their expectation most, best first.

    The score is ``(c - e) / sqrt(e + 1)``, above 0: the Pearson residual of a Poisson count. The 1
    in its variance keeps the score of an item that had no users before finite. ``c`` is the number
    of pairs of user and day that an item has in the `trending_days` days that end with `day`. ``e``
    is that number in the 28 days before them, scaled to as many days. Days without any event do not
    count. So with a shorter history ``e`` is scaled from fewer days, and without days before
    nothing is trending.

    events : day, user_id, item_id, the ids as String or as Enum
    eligible : String series, item ids

    Returns item_id String, score Float32; equal scores are ordered by item id.
    """
    before_recent = day - timedelta(days=settings.trending_days)
    pairs = (
        events.lazy()
        .filter(pl.col("day").is_between(before_recent - timedelta(days=BASE_DAYS - 1), day))
        .select("day", "user_id", "item_id")
        .unique()
        .with_columns(recent=pl.col("day") > before_recent)
        .collect()
    )
    is_recent = pairs.unique("day")["recent"]
    # not a number without days before
    expected = pl.col("before") * is_recent.sum() / (~is_recent).sum()
    return (
        pairs.group_by("item_id")
        .agg(count=pl.col("recent").sum(), before=(~pl.col("recent")).sum())
        .select(
            pl.col("item_id").cast(pl.String),
            score=((pl.col("count") - expected) / (expected + 1).sqrt()).cast(pl.Float32),
        )
        .filter(
            pl.col("score") > 0,
            pl.col("score").is_finite(),
            pl.col("item_id").is_in(eligible.implode()),
        )
        .sort(-pl.col("score"), "item_id")
        .head(TRENDING_ITEMS)
    )
