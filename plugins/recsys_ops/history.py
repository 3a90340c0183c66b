"""The history: a Delta table of clean events, one partition per day, that every training reads.

Replacing days is one atomic commit: a reader and a killed writer never leave or see half a day.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recsys_ops import paths
from recsys_ops.errors import DataError, StorageError
from recsys_ops.storage import Storage

log = logging.getLogger(__name__)

SCHEMA: Mapping[str, pl.DataType] = {
    "day": pl.Date(),
    "event_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "event_type": pl.String(),
    "event_time": pl.Datetime("us", "UTC"),
    "quantity": pl.Int64(),
    "value": pl.Float64(),
}
_ATTEMPTS = 20


def replace_days(storage: Storage, events: pl.DataFrame, first: date, last: date) -> int:
    """Make the days first … last hold exactly `events` (canonical frame); days outside are untouched.

    Runs of different days may commit at the same time: a lost race is tried again on the newer table.
    Raises DataError if an event lies outside the days. Returns the table's new version.
    """
    rows = events.with_columns(day=pl.col("recorded_at").dt.date()).select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
    )
    outside = rows.filter(~pl.col("day").is_between(first, last)).height
    if outside:
        raise DataError(f"{outside} of {rows.height} events lie outside {first} … {last}: extract the day again")
    table_url = storage.url(paths.HISTORY)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            write_deltalake(
                table_url, pl.DataFrame(schema=SCHEMA), mode="ignore", partition_by=["day"], storage_options=storage.options
            )
            write_deltalake(
                table_url,
                rows.sort("day", "event_time", "event_id", "item_id"),
                mode="overwrite",
                predicate=f"day >= '{first}' AND day <= '{last}'",
                storage_options=storage.options,
            )
            return DeltaTable(table_url, storage_options=storage.options).version()
        except CommitFailedError as error:
            if attempt == _ATTEMPTS:
                raise StorageError(f"{table_url}: lost {attempt} races against other writers; run the task again") from error
            log.info("another day was committed first, attempt %d", attempt)
            time.sleep(0.1 * attempt)
        except (DeltaError, OSError) as error:
            raise StorageError(f"cannot write {table_url}: {error}") from error
    raise AssertionError("unreachable")


def version(storage: Storage) -> int:
    """The table's current version. Raises StorageError when there is no history yet."""
    try:
        return DeltaTable(storage.url(paths.HISTORY), storage_options=storage.options).version()
    except TableNotFoundError as error:
        raise StorageError(
            f"no history at {storage.url(paths.HISTORY)}: run recsys_ingest for at least two days first"
        ) from error
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot read {storage.url(paths.HISTORY)}: {error}") from error


def read(storage: Storage, first: date, last: date, *, version: int, columns: Sequence[str] = tuple(SCHEMA)) -> pl.DataFrame:
    """The events of the days first … last as of a table version. Memory grows with the events of the window.

    A row that the shop corrected on a later day may stand in the history twice, where the two days were not ingested by one
    run: the later day's is read.
    """
    key = ["event_id", "item_id"]
    try:
        table = pl.scan_delta(storage.url(paths.HISTORY), version=version, storage_options=storage.options)
        rows = table.filter(pl.col("day").is_between(first, last)).select(dict.fromkeys(["day", *key, *columns]).keys()).collect()
        return rows.sort("day", maintain_order=True).unique(key, keep="last", maintain_order=True).select(columns)
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(f"cannot read {storage.url(paths.HISTORY)} version {version}: {error}") from error
