"""The rows that the cleaning steps rejected, with their reasons."""

import logging
from collections.abc import Sequence
from datetime import date

import polars as pl

from recsys_ops.cleaning.parsing import as_text
from recsys_ops.errors import StorageError
from recsys_ops.ingest.steps import STEPS, find_step, step_before
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)


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


def rejected_shares(storage: Storage, days: Sequence[date]) -> dict[date, dict[str, float]]:
    """The shares of the delivered rows that the runs of `days` rejected, from the steps' reports.

    Raises StorageError where a report of the last day is damaged; one of an earlier day is named in
    a warning.

    Returns for each day ``quarantine_share`` and ``bot_share``, see `Step.counts_as`, and
    ``ignored_share`` if the contract ignores events. A day is missing if it had no run, if its run
    failed, or if nothing was delivered.
    """
    counted = [step for step in STEPS.values() if step.counts_as is not None]
    first, *_ = STEPS
    shares: dict[date, dict[str, float]] = {}
    for day in days:
        written = {step.name: paths.report(step.name, day) for step in counted}
        if not all(storage.exists(path) for path in written.values()):
            continue
        try:
            reports = {
                name: storage.read_record(path, "rows_in", "rejected")
                for name, path in written.items()
            }
        except StorageError as error:
            if day == max(days):
                raise
            log.warning("the shares of %s are left out: %s", day, error)
            continue
        delivered = reports[first]["rows_in"]
        if delivered:
            shares[day] = {
                share: sum(reports[s.name]["rejected"] for s in counted if s.counts_as == share)
                / delivered
                for share in ("quarantine_share", "bot_share")
            }
            for report in reports.values():
                if "ignored" in report:
                    shares[day]["ignored_share"] = sum(report["ignored"].values()) / delivered
    return shares


def _rejected(storage: Storage, step: str, day: date) -> pl.LazyFrame:
    rows = storage.scan_parquet(paths.quarantine(step, day))[0]
    dtypes = rows.collect_schema()
    row_id = "row_id" if "row_id" in dtypes else "row"
    text = as_text(row_id, dtypes[row_id]).alias("row_id")
    return rows.select(text, "reason", "column", "value")
