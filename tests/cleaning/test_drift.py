"""The report on columns that differ from the day before."""

import polars as pl

from recsys_ops.cleaning.drift import drift

BEFORE = pl.Schema({"user_id": pl.String, "price": pl.Int64, "note": pl.Null, "sku": pl.String})


def test_new_missing_and_retyped_columns_are_named() -> None:
    today = pl.Schema(
        {"price": pl.String, "user_id": pl.String, "colour": pl.String, "note": pl.String}
    )
    assert drift(today, BEFORE) == {
        "new": ["colour"],
        "missing": ["sku"],
        "retyped": {"price": "Int64 → String"},
    }


def test_another_order_and_a_column_without_values_are_no_drift() -> None:
    today = pl.Schema({"sku": pl.Null, "note": pl.Int64, "price": pl.Int64, "user_id": pl.String})
    assert drift(today, BEFORE) == {}
