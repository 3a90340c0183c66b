"""The rows that the cleaning steps rejected, with their reasons."""

from datetime import date

import polars as pl

from recsys_ops.cleaning.parsing import as_text
from recsys_ops.ingest.steps import STEPS, find_step, step_before
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage


def quarantine_summary(storage: Storage, day: date) -> pl.DataFrame:
    """The rejected rows of a day's run, counted.

    Returns ``step``, ``reason``, ``column``, ``rows``, and the ``row_id`` and ``value`` of one row.
    """
    # the first step always leaves an object, the steps after a failed one do not
    names = [
        name
        for name, step in STEPS.items()
        if step_before(step) is None or storage.exists(paths.quarantine(name, day))
    ]
    return (
        pl.concat(_rejected(storage, name, day).with_columns(step=pl.lit(name)) for name in names)
        .group_by("step", "reason", "column", maintain_order=True)
        .agg(pl.len().alias("rows"), pl.first("row_id"), pl.first("value"))
        .collect()
    )


def rejected_rows(
    storage: Storage, step: str, day: date, reason: str | None, limit: int
) -> pl.DataFrame:
    """The first `limit` rows that a step rejected, for one reason or for any.

    Raises DataError when no step has this name.
    """
    rows = _rejected(storage, find_step(step).name, day)
    return (rows if reason is None else rows.filter(reason=reason)).head(limit).collect()


def _rejected(storage: Storage, step: str, day: date) -> pl.LazyFrame:
    rows = storage.scan_parquet(paths.quarantine(step, day))[0]
    dtypes = rows.collect_schema()
    row_id = "row_id" if "row_id" in dtypes else "row"
    text = as_text(row_id, dtypes[row_id]).alias("row_id")
    return rows.select(text, "reason", "column", "value")
