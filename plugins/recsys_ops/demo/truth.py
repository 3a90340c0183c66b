"""The truth about the demo shop's rows: the cleaning step that should reject a row of a label."""

import polars as pl

KEPT = "kept"


def expected_step(label: pl.Expr, detail: pl.Expr) -> pl.Expr:
    """The step that should reject a row, or `kept`; null for a label that the shop does not use."""
    return (
        pl.when(detail == "alias_conflict")
        .then(pl.lit("align_schema"))
        .otherwise(label.replace_strict(_STEPS, default=None, return_dtype=pl.String))
    )


_STEPS = {
    "human": KEPT,
    "corrupt": "fix_types",
    "duplicate": "deduplicate",
    "future": "fix_types",
    "crawler": "filter_crawlers",
    "scraper": "filter_bots",
    "staff": "filter_staff",
    "test_account": "filter_staff",
}
