"""Duplicates: keeps one row for each event and item."""

import polars as pl

from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.cleaning.result import Cleaned, split_rejected

# a basket has several rows with one event id
KEY = ("event_id", "item_id")
CONTENT = [name for name in SCHEMA if name not in (*KEY, "row_id", "recorded_at")]


def deduplicate(events: pl.LazyFrame) -> Cleaned:
    """Keep one row for each event and item.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows by 8 bytes for
        each row, and with the duplicates.

    Of several rows with one key, the row recorded last is kept; if that is equal, the one with the
    greatest row id. An earlier row is a ``duplicate`` if its content is the same, else
    ``superseded``.
    """
    key = pl.struct(KEY).hash()
    hashes = events.select(key=key).collect(engine="streaming")["key"].sort()
    repeated = hashes.filter(hashes == hashes.shift()).unique()
    candidates = events.filter(key.is_in(repeated.implode())).collect(engine="streaming")
    # the length first: row ids are mostly numbers, so "10" must come after "9"
    ordered = candidates.sort("recorded_at", pl.col("row_id").str.len_bytes(), "row_id", "row")
    same = pl.all_horizontal(
        pl.col(name).eq_missing(pl.col(name).last().over(KEY)) for name in CONTENT
    )
    latest = pl.col("row").last().over(KEY)
    rejections = (
        ordered.with_columns(latest=latest, same=same)
        .filter(pl.col("row") != pl.col("latest"))
        .select(
            "row",
            reason=pl.when("same").then(pl.lit("duplicate")).otherwise(pl.lit("superseded")),
            column=pl.lit("event_id"),
            value="event_id",
        )
    )
    return split_rejected(events, rejections, {})
