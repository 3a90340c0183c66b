"""Trending: the items with more visitors in the last days than the four weeks before let expect."""

from datetime import date, timedelta

import polars as pl

from recsys_ops.settings import ListsSettings

BASE_DAYS = 28
TRENDING_ITEMS = 100


def trending(
    events: pl.DataFrame, eligible: pl.Series, day: date, settings: ListsSettings
) -> pl.DataFrame:
    """item_id String, score Float32: the at most 100 eligible items that stand out most, best first, equal scores by item id.

    ``score = (c - e) / sqrt(e + 1)``, above 0: the Pearson residual of a Poisson count with one more in its variance, so that
    a few visitors of an item that had none are not infinitely many. ``c`` counts the pairs of user and day that an item has in
    the `trending_days` days that end with `day`; ``e`` is what the 28 days before them had, scaled to as many days. Days
    without any event count in neither: with a shorter history, ``e`` is scaled from the days that are there, and without any
    nothing is trending.

    events : day, user_id, item_id, the ids as text or as Enum · eligible : String series of item ids
    """
    recent = day - timedelta(days=settings.trending_days)
    pairs = (
        events.lazy()
        .filter(pl.col("day").is_between(recent - timedelta(days=BASE_DAYS - 1), day))
        .select("day", "user_id", "item_id")
        .unique()
        .with_columns(recent=pl.col("day") > recent)
        .collect()
    )
    is_recent = pairs.unique("day")["recent"]
    # without days before, that is 0 / 0
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
