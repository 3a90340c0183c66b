"""What the cleaning steps of a run rejected, and why."""

from datetime import date

import polars as pl

from recsys_ops.errors import DataError
from recsys_ops.ingest.clean_day import STEPS
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage


def quarantine_summary(storage: Storage, day: date) -> pl.DataFrame:
    """The run of a day: ``step``, ``reason``, ``column``, ``rows``, and one rejected row's ``row_id`` and ``value``."""
    reasons = ["step", "reason", "column"]
    # the first step always leaves an object, those after a failed one do not
    there = [
        step
        for step in STEPS
        if step == "align_schema" or storage.exists(paths.quarantine(step, day))
    ]
    return (
        pl.concat(_rejected(storage, step, day).with_columns(step=pl.lit(step)) for step in there)
        .group_by(reasons, maintain_order=True)
        .agg(pl.len().alias("rows"), pl.first("row_id"), pl.first("value"))
        .collect()
    )


def rejected_rows(
    storage: Storage, step: str, day: date, reason: str | None, limit: int
) -> pl.DataFrame:
    """The first `limit` rows that a step rejected, for one reason or for any. Raises DataError for a step that there is not."""
    if step not in STEPS:
        raise DataError(f"no cleaning step is named {step}: {', '.join(STEPS)}")
    rows = _rejected(storage, step, day)
    return (rows if reason is None else rows.filter(reason=reason)).head(limit).collect()


def _rejected(storage: Storage, step: str, day: date) -> pl.LazyFrame:
    rows = storage.scan_parquet(paths.quarantine(step, day))[0]
    row_id = pl.col("row_id") if "row_id" in rows.collect_schema() else pl.col("row")
    return rows.select(row_id.cast(pl.String).alias("row_id"), "reason", "column", "value")
