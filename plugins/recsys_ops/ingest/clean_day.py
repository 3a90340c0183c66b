"""The cleaning of a day: from the raw object to the rows that go into the history.

A step that writes rows leaves an object with the rows it keeps. Every other step leaves an object
with the indices of the rows that it and the steps before it rejected, and with the SHA-256 of the
object whose rows they are. The rejected rows themselves are in quarantine, with their reasons.
"""

import logging
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_ops.cleaning import Cleaned, Contract, absent_filter_inputs, drift
from recsys_ops.cleaning.result import is_member
from recsys_ops.errors import DataError, StorageError
from recsys_ops.ingest.day_counts import count_days, had_values, write_counts
from recsys_ops.ingest.steps import (
    EXTRACT,
    Step,
    contract_of,
    find_step,
    step_before,
    steps_after,
)
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation, generations
from recsys_ops.storage.objects import Storage
from recsys_ops.storage.serialization import sha256
from recsys_ops.storage.temporary_folder import temporary_folder

log = logging.getLogger(__name__)

SOURCE = "source_sha256"  # metadata: the SHA-256 of the object that holds the rows
DELIVERY = "delivery"  # metadata: the path of the raw object

_FAST: Any = {"compression": "zstd", "compression_level": 1, "statistics": False}
# Messages go into logs and alerts, and columns may be mixed up. So a message shows only values
# that cannot be personal: numbers and times in these columns, and names of events.
_NUMBER = r"(?!(\d+\.){3})[-0-9.eE_:TZ]{1,32}"
_IMPERSONAL = dict.fromkeys(("recorded_at", "event_time", "quantity", "value"), _NUMBER) | {
    "event_type": "[a-z_]{1,32}"
}


def run_step(
    storage: Storage,
    name: str,
    day: date,
    settings: CleaningSettings,
    delivery: str | None = None,
) -> dict[str, Any]:
    """Apply a step to the rows that the step before it kept, and return the step's figures.

    delivery : the path of the raw object; None: the day's current one.

    Memory grows with the compressed rows of the day, and as the step's function says.
    Raises DataError when the share of rejected rows is above `max_rejected_share`; the rejected
    rows are in quarantine by then. Also when a column of the filters has vanished from the
    delivery.
    """
    step = find_step(name)
    rows, metadata = _rows_to_clean(storage, step, day, settings, delivery)
    contract = contract_of(settings)
    if step_before(step) is None:
        _check_filter_inputs(storage, step, day, rows.collect_schema(), contract)
    cleaned = step.function(rows, settings)
    metadata |= _metadata(cleaned)
    for warning in cleaned.warnings:
        log.warning("%s %s: %s", name, day, warning)
    with temporary_folder() as folder:
        kept, rejected = folder / "kept.parquet", folder / "rejected.parquet"
        try:
            _write_rows(step, rows, cleaned, kept, rejected, metadata)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StorageError(
                f"{name} {day}: cannot write to {folder}, or cannot read the rows: {error}"
            ) from error
        storage.put(paths.quarantine(name, day), rejected)
        for later in steps_after(step):  # what they rejected in an earlier run is out of date
            storage.delete(paths.quarantine(later.name, day))
            storage.delete(paths.day_counts(later.name, day))
        quarantined = pl.scan_parquet(rejected)
        figures = _figures(rows, quarantined, cleaned)
        ignored = sum(figures.get("ignored", {}).values())
        wanted = figures["rows_in"] - ignored
        if figures["rejected"] > settings.max_rejected_share * wanted:
            # the rows of an earlier run must not be taken for those of this run
            storage.delete(paths.step(name, day))
            raise DataError(
                _too_many(
                    storage, name, day, figures, wanted, quarantined, settings.max_rejected_share
                )
            )
        figures["kept"] = _count(pl.scan_parquet(kept) if step.writes_rows else cleaned.kept)
        exploded = figures["kept"] + figures["rejected"] + ignored - figures["rows_in"]
        if exploded and not (exploded > 0 and cleaned.notes.get("split")):
            raise DataError(
                f"{name} {day}: kept, rejected and ignored rows must add up to the rows in: "
                f"{figures}. The step's function loses or doubles rows; correct it"
            )
        if step.writes_rows:
            storage.put(paths.step(name, day), kept)
        else:
            _write_rejected(storage, step, day, quarantined, metadata)
        by_day = count_days(step, day, rows, quarantined, cleaned, contract)
    write_counts(storage, step, day, by_day)
    figures["conversions_rejected"] = sum(
        counts["conversions_rejected"] for counts in by_day.values()
    )
    if step_before(step) is None:
        figures |= {"exploded": exploded, "drift": _drift(storage, day, rows.collect_schema())}
    return figures


def kept_rows(storage: Storage, name: str, day: date) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The canonical rows that a step kept, in the order of delivery, and the step's metadata.

    name : a step that writes rows, or one that reads the rows of such a step.
    Raises StorageError when the step's object is missing, or when the rows that it refers to have
    been written again since.
    """
    step = find_step(name)
    if step.writes_rows:
        return _rows_of(storage, name, day)
    rows, metadata = _rows_of(storage, step.reads, day)
    rejected, metadata = _rejected_by(storage, step, day, metadata[SOURCE])
    return rows.filter(~is_member(rejected)), metadata


def _rows_to_clean(
    storage: Storage, step: Step, day: date, settings: CleaningSettings, delivery: str | None
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The rows that a step gets, and their metadata."""
    before = step_before(step)
    if before is None:
        return _rows_of(storage, step.reads, day, delivery)
    if before.repeat is None:
        return kept_rows(storage, before.name, day)
    rows, metadata = _rows_of(storage, before.reads, day, delivery)
    rejected, metadata = _rejected_by(storage, before, day, metadata[SOURCE])
    repeated = before.repeat(rows, settings, rejected)
    if not metadata.items() >= _metadata(repeated).items():
        raise StorageError(
            f"the contract has changed since {before.name} cleaned {day}: "
            f"run the steps after {before.reads} again"
        )
    return repeated.kept, metadata


def _rows_of(
    storage: Storage, task: str, day: date, delivery: str | None = None
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The rows that a task wrote, and their metadata with the object's SHA-256."""
    if task == EXTRACT:
        path = delivery or current_generation(storage, paths.RAW, day)
    else:
        path = paths.step(task, day)
    data = storage.get(path)
    rows, metadata = storage.open_parquet(path, data)
    if task == EXTRACT:
        metadata[DELIVERY] = path
    return rows, metadata | {SOURCE: sha256(data)}


def _rejected_by(
    storage: Storage, step: Step, day: date, source: str
) -> tuple[pl.Series, dict[str, str]]:
    """The indices of the rows that a step and those before it rejected, and the step's metadata."""
    rejected, metadata = storage.scan_parquet(paths.step(step.name, day))
    if metadata.get(SOURCE) != source:
        raise StorageError(
            f"{step.name} of {day} refers to rows that {step.reads} has replaced since: "
            f"run the steps after {step.reads} again"
        )
    return rejected.collect()["row"], metadata


def _write_rejected(
    storage: Storage, step: Step, day: date, quarantined: pl.LazyFrame, metadata: dict[str, str]
) -> None:
    """Write the ascending indices of all rows rejected so far, and the SHA-256 of their object."""
    rejected = quarantined.select("row").collect()["row"]
    before = step_before(step)
    if before is not None and not before.writes_rows:
        rejected = rejected.append(_rejected_by(storage, before, day, metadata[SOURCE])[0])
    storage.write_parquet(paths.step(step.name, day), rejected.sort().to_frame(), metadata)


def _write_rows(
    step: Step,
    rows: pl.LazyFrame,
    cleaned: Cleaned,
    kept: Path,
    rejected: Path,
    metadata: dict[str, str],
) -> None:
    """Write the rejected rows, and the kept rows of a step that writes them.

    Two separate sinks: one combined plan would keep the shared part in memory.
    """
    refused = cleaned.rejected
    if step.writes_rows:
        cleaned.kept.sink_parquet(kept, metadata=metadata, **_FAST)
        refused = refused.filter(_is_missing_in(rows, kept))
    refused.sink_parquet(rejected, metadata=metadata, **_FAST)


def _is_missing_in(rows: pl.LazyFrame, kept: Path) -> pl.Expr:
    """Whether a row is not among the kept: only for those the reasons are computed."""
    indices, kept_indices = (
        frame.select("row").collect()["row"].to_numpy() for frame in (rows, pl.scan_parquet(kept))
    )
    return is_member(pl.Series(np.setdiff1d(indices, kept_indices, assume_unique=True)))


def _metadata(cleaned: Cleaned) -> dict[str, str]:
    """The notes that are stored with the rows: the versions of the lists and of the contract."""
    return {name: note for name, note in cleaned.notes.items() if isinstance(note, str)}


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def _figures(rows: pl.LazyFrame, quarantined: pl.LazyFrame, cleaned: Cleaned) -> dict[str, Any]:
    reasons = _count_by(quarantined, "reason")
    ignored = {} if cleaned.ignored is None else {"ignored": _count_by(cleaned.ignored, "event")}
    return {
        "rows_in": _count(rows),
        "kept": 0,
        "rejected": sum(reasons.values()),
        "reasons": reasons,
        **ignored,
        **cleaned.notes,
    }


def _count_by(rows: pl.LazyFrame, column: str) -> dict[str, int]:
    return dict(rows.group_by(column).len().sort(column).collect(engine="streaming").iter_rows())


def _too_many(
    storage: Storage,
    name: str,
    day: date,
    figures: dict[str, Any],
    wanted: int,
    quarantined: pl.LazyFrame,
    max_share: float,
) -> str:
    """The message of the failed task: how many rows, the commonest reasons, and where they are."""
    commonest = sorted(figures["reasons"].items(), key=lambda reason: -reason[1])[:5]
    samples = (
        quarantined.group_by("reason", maintain_order=True).first().collect(engine="streaming")
    )
    sample = {row["reason"]: _sample(row) for row in samples.iter_rows(named=True)}
    reasons = "; ".join(
        f"{reason} {count:,}, such as {sample[reason]}" for reason, count in commonest
    )
    return (
        f"{name} {day}: {figures['rejected']:,} of {wanted:,} rows rejected, "
        f"more than cleaning.max_rejected_share = {max_share}. {reasons}. "
        f"The rows: {storage.url(paths.quarantine(name, day))}. "
        "Correct the source, include/contract.yaml or the settings"
    )


def _sample(row: dict[str, Any]) -> str:
    """A rejected row for a message: its id, and its value only if that cannot be personal."""
    place = f"row_id {row['row_id']}" if row.get("row_id") is not None else f"row {row['row']}"
    pattern, value = _IMPERSONAL.get(row["column"]), str(row["value"])
    shown = f" = {value!r}" if pattern and re.fullmatch(pattern, value) else ""
    return f"{place}, {row['column']}{shown}" if row["column"] else place


def _check_filter_inputs(
    storage: Storage, step: Step, day: date, today: pl.Schema, contract: Contract
) -> None:
    absent = absent_filter_inputs(today, contract)
    if vanished := sorted(absent & had_values(storage, day)) if absent else []:
        storage.delete(paths.step(step.name, day))
        raise DataError(
            f"{step.name} {day}: the delivery lacks {', '.join(vanished)}, which the days before "
            "had, so the filters would find nothing by it. Deliver it again in include/sql, name "
            "it as an alias in include/contract.yaml, or write there gone: true if it will never "
            "come back"
        )


def _drift(storage: Storage, day: date, today: pl.Schema) -> dict[str, object] | None:
    """How the delivered columns differ from the day before's; None if there is no such delivery."""
    earlier = generations(storage, paths.RAW, day - timedelta(days=1))
    if not earlier:
        return None
    try:
        changes = drift(today, storage.schema(earlier[-1].path))
    except StorageError as error:
        log.warning("the columns cannot be compared with the day before's: %s", error)
        return None
    if changes:
        log.warning("the delivery of %s differs from the day before's: %s", day, changes)
    return changes
