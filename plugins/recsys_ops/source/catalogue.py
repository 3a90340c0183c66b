"""The catalogue: the shop's items, and which of them are eligible."""

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
    """The catalogue frame from the rows that the query delivered.

    case : of the item ids, as the contract says for the events.
    Returns one row an item, (n_items, `SCHEMA`), sorted by id; ids are trimmed.
    Raises DataError when a column is missing or does not fit its type, or an item occurs twice.
    """
    missing = [name for name in SCHEMA if name not in delivered.columns]
    if missing:
        raise DataError(
            f"the catalogue query delivers no {', '.join(missing)}; "
            "correct include/sql/extract_catalogue.sql"
        )
    try:
        frame = delivered.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the catalogue does not fit its types: {error}; "
            "correct include/sql/extract_catalogue.sql"
        ) from error
    item = pl.col("item_id").str.strip_chars()
    cased = {"upper": item.str.to_uppercase(), "lower": item.str.to_lowercase(), None: item}[case]
    frame = frame.with_columns(item_id=cased).sort("item_id")
    duplicates = frame.filter(pl.col("item_id").is_duplicated() | pl.col("item_id").is_null())
    if duplicates.height:
        raise DataError(
            f"{duplicates.height} catalogue rows share an item_id or lack one, "
            f"e.g. {duplicates['item_id'][0]!r}; correct include/sql/extract_catalogue.sql"
        )
    return frame


def eligible_items(catalogue: pl.DataFrame, exclude_categories: Sequence[str] = ()) -> pl.DataFrame:
    """The eligible items: published, in stock, of no excluded category.

    Raises DataError when there is none.
    """
    excluded = pl.col("category").is_in(exclude_categories).fill_null(False)
    eligible = catalogue.filter(
        (pl.col("status") == "published") & (pl.col("stock") > 0), ~excluded
    )
    if eligible.is_empty():
        raise DataError(
            f"none of {catalogue.height} catalogue items has status 'published', stock above 0 and "
            "a category that is not in lists.exclude_categories: no item is eligible. "
            "Check this setting and include/sql/extract_catalogue.sql"
        )
    return eligible
