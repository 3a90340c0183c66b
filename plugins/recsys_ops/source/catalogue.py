"""The catalogue: what the shop sells, and which of it may be recommended."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from recsys_ops.errors import DataError

SCHEMA = {
    "item_id": pl.String(),
    "title": pl.String(),
    "category": pl.String(),
    "price": pl.Float64(),
    "stock": pl.Int64(),
    "status": pl.String(),
}


def normalise_catalogue(
    delivered: pl.DataFrame, case: Literal["upper", "lower"] | None = None
) -> pl.DataFrame:
    """The catalogue frame of what the query delivered: one row an item, sorted by id, ids trimmed and cased as the events' are.

    Raises DataError when a column is missing, does not fit its type, or an item stands there twice.
    """
    missing = [name for name in SCHEMA if name not in delivered.columns]
    if missing:
        raise DataError(
            f"the catalogue query delivers no {', '.join(missing)}; mend include/sql/extract_catalogue.sql"
        )
    try:
        frame = delivered.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the catalogue does not fit its types: {error}; mend include/sql/extract_catalogue.sql"
        ) from error
    item = pl.col("item_id").str.strip_chars()
    cased = {"upper": item.str.to_uppercase(), "lower": item.str.to_lowercase(), None: item}[case]
    frame = frame.with_columns(item_id=cased).sort("item_id")
    twice = frame.filter(pl.col("item_id").is_duplicated() | pl.col("item_id").is_null())
    if twice.height:
        raise DataError(
            f"{twice.height} catalogue rows share an item_id or lack one, e.g. {twice['item_id'][0]!r}"
        )
    return frame


def eligible_items(catalogue: pl.DataFrame, exclude_categories: Sequence[str] = ()) -> pl.DataFrame:
    """The items that may be recommended: published, in stock, of no excluded category. Raises DataError when there is none."""
    excluded = pl.col("category").is_in(exclude_categories).fill_null(False)
    found = catalogue.filter((pl.col("status") == "published") & (pl.col("stock") > 0), ~excluded)
    if found.is_empty():
        raise DataError(
            f"none of {catalogue.height} catalogue items has status 'published', stock above 0 and a category that is not in "
            "lists.exclude_categories: nothing could be recommended; look at it and at include/sql/extract_catalogue.sql"
        )
    return found
