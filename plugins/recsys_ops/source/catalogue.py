"""The catalogue: the shop's items, and which of them are eligible."""

from collections.abc import Sequence

import polars as pl

from recsys_ops.cleaning.contract import ColumnRule, DecimalRule, TextRule
from recsys_ops.cleaning.parsing import first_reason, read_column, with_readings
from recsys_ops.errors import DataError

SCHEMA = {
    "item_id": pl.String(),
    "title": pl.String(),
    "category": pl.String(),
    "price": pl.Float64(),
    "stock": pl.Int64(),
    "status": pl.String(),
}
# a larger share of rows without an item id is a fault of the query, not of some rows
MAX_REJECTED_SHARE = 0.05
_TEXT = TextRule(type="text", nullable=True)
_NUMBER = DecimalRule(type="decimal", nullable=True, min=-1e15, max=1e15)
_QUERY = "include/sql/extract_catalogue.sql"


def normalise_catalogue(
    delivered: pl.DataFrame, item_rule: ColumnRule
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The catalogue frame from the rows that the query delivered.

    item_rule : the contract's rule of `item_id`: the events' ids are read by it, too.

    Returns one row an item, (n_items, `SCHEMA`), sorted by id, and the number of rows rejected for
    each reason, because their item id is none. A started piece in stock counts as a whole one.

    Raises DataError when a column is missing or holds another type, when an item occurs twice, or
    when more than `MAX_REJECTED_SHARE` of the rows are rejected for more than the rule's pattern.
    """
    missing = [name for name in SCHEMA if name not in delivered.columns]
    if missing:
        raise DataError(f"the catalogue query delivers no {', '.join(missing)}; correct {_QUERY}")
    rules: dict[str, ColumnRule] = {
        "item_id": item_rule,
        "title": _TEXT,
        "category": _TEXT,
        "price": _NUMBER,
        "stock": _NUMBER,
        "status": _TEXT,
    }
    readings = {
        name: read_column(name, delivered.schema[name], rule, {}) for name, rule in rules.items()
    }
    read = (
        with_readings(delivered.lazy(), readings)
        .select(
            *(pl.col(f"{name} value").alias(name) for name in SCHEMA),
            *(pl.col(f"{name} text") for name in SCHEMA),
            *(
                first_reason(reading.rejections).alias(f"{name} reason")
                for name, reading in readings.items()
                if reading.rejections
            ),
        )
        .collect()
    )
    rejected = read.filter(pl.col("item_id reason").is_not_null())
    kept = read.filter(pl.col("item_id reason").is_null())
    by_reason = rejected.group_by("item_id reason").len()
    reasons = dict(by_reason.sort("len", "item_id reason", descending=[True, False]).iter_rows())
    unwanted = reasons.get("pattern", 0)  # what the contract leaves out is no fault
    if rejected.height - unwanted > MAX_REJECTED_SHARE * read.height:
        raise DataError(
            f"{rejected.height:,} of {read.height:,} catalogue rows have no valid item_id "
            f"({_counts(reasons)}), e.g. {rejected['item_id text'][0]!r}; "
            f"correct {_QUERY}, or the rule of item_id in the contract"
        )
    for name in ("price", "stock"):
        wrong = kept.filter(pl.col(f"{name} reason").is_not_null())
        if wrong.height:
            raise DataError(
                f"the catalogue's column {name} holds no number in {wrong.height:,} rows, "
                f"e.g. {wrong[f'{name} text'][0]!r}; correct {_QUERY}"
            )
    frame = kept.select(
        pl.col("stock").ceil().cast(dtype) if name == "stock" else pl.col(name)
        for name, dtype in SCHEMA.items()
    ).sort("item_id")
    duplicates = frame.filter(pl.col("item_id").is_duplicated())
    if duplicates.height:
        raise DataError(
            f"{duplicates.height:,} catalogue rows share an item_id, "
            f"e.g. {duplicates['item_id'][0]!r}; correct {_QUERY}"
        )
    return frame, reasons


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())


def eligible_items(
    catalogue: pl.DataFrame,
    exclude_categories: Sequence[str] = (),
    *,
    sell_unmanaged_stock: bool = True,
) -> pl.DataFrame:
    """The eligible items: published, in stock, of no excluded category.

    sell_unmanaged_stock : whether an item without a figure of stock (null) is in stock

    Raises DataError when there is none.
    """
    excluded = pl.col("category").is_in(exclude_categories).fill_null(False)
    in_stock = (pl.col("stock") > 0).fill_null(sell_unmanaged_stock)
    eligible = catalogue.filter(pl.col("status") == "published", in_stock, ~excluded)
    if eligible.is_empty():
        raise DataError(
            f"none of {catalogue.height} catalogue items has status 'published', stock above 0 and "
            "a category that is not in lists.exclude_categories: no item is eligible. "
            "Check this setting and include/sql/extract_catalogue.sql"
        )
    return eligible


def unmanaged_share(catalogue: pl.DataFrame) -> float:
    """The share of the published items that have no figure of stock; 0 where none is published."""
    stock = catalogue.filter(status="published")["stock"]
    return stock.null_count() / max(1, len(stock))
