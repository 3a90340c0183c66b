"""The history: a Delta table of clean events with one partition per day.

Days are replaced in one atomic commit: no reader sees, and no killed writer leaves, half a day.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar, get_args

import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from recsys_ops.errors import DataError, StorageError
from recsys_ops.settings import EventType, HistorySettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage, error_reason, retry

log = logging.getLogger(__name__)

SCHEMA: Mapping[str, pl.DataType] = {
    "day": pl.Date(),
    "event_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "event_type": pl.String(),
    "event_time": pl.Datetime("us", "UTC"),
    "quantity": pl.Float64(),
    "value": pl.Float64(),
}
# The table itself refuses other rows. NaN compares as greater than every number.
CONSTRAINTS: Mapping[str, str] = {
    "event_type_is_known": f"event_type IN {get_args(EventType)}",
    "quantity_is_above_zero": "quantity > 0",
    "value_is_a_price": "value IS NULL OR (value >= 0 AND value < 1e300)",
}
_FORMER_CONSTRAINT = "quantity_is_positive"  # of whole quantities: quantity >= 1
_CONFIGURATION = {
    # opening the table reads the last checkpoint and at most this many commits after it
    "delta.checkpointInterval": "10",
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_SUNDAY = 6
_DROPPED_AT_ONCE = 31

T = TypeVar("T")


@dataclass(frozen=True)
class HistoryCommit:
    """One commit of the table: `metadata` is that of `replace_days`, empty for upkeep."""

    version: int
    committed_at: datetime
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class HistoryStatus:
    """The state of the history, from the table's log alone.

    days : one row for each calendar day from the first in the history: ``day``, ``rows`` (null if
        the day is missing), ``of_median`` (rows over the median of those of the 28 days before that
        exist; null if none do) and ``written`` (UTC).
    last : the last commit of a run, if it is among the latest 20.
    """

    url: str
    days: pl.DataFrame
    version: int
    last: HistoryCommit | None

    @property
    def missing(self) -> list[date]:
        return self.days.filter(pl.col("rows").is_null())["day"].to_list()


def replace_days(
    storage: Storage,
    events: pl.DataFrame,
    first: date,
    last: date,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Replace the rows of the days first … last by `events`; other days do not change.

    events : the canonical event frame.
    metadata : stored as JSON in the commit's ``userMetadata``: which run, contract and lists.

    Several runs may commit at the same time, even for the same day: a write conflict is retried on
    the newer table. Returns a version of the table that contains the rows. Raises DataError if an
    event lies outside the days or breaks a constraint.
    """
    rows = events.with_columns(day=pl.col("recorded_at").dt.date()).select(
        pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()
    )
    outside = rows.filter(~pl.col("day").is_between(first, last)).height
    if outside:
        raise DataError(
            f"{outside} of {rows.height} events lie outside {first} … {last}: extract the day again"
        )
    rows = rows.sort("day", "event_time", "event_id", "item_id")

    def replace(table: DeltaTable) -> int:
        write_deltalake(
            table,
            rows,
            mode="overwrite",
            predicate=f"day >= '{first}' AND day <= '{last}'",
            commit_properties=CommitProperties(
                custom_metadata={"userMetadata": json.dumps(metadata or {}, sort_keys=True)}
            ),
        )
        return table.version()

    return _commit(storage, f"{first} … {last}", replace)


def apply_retention(
    storage: Storage, day: date, settings: HistorySettings, reason: str | None = None
) -> dict[str, int]:
    """Drop the days more than `retention_days` before `day`; on Sundays compact and vacuum.

    reason : why more days than those of a month are to be dropped at once, if a person has said so

    The vacuum deletes files that no version of the last 7 days needs, and commits older than 30
    days that a checkpoint covers. Returns the numbers of days dropped, files compacted and files
    removed. Raises DataError, and drops nothing, for more days than those of a month without a
    reason: a nightly run drops one.
    """
    oldest = day - timedelta(days=settings.retention_days)

    def drop(table: DeltaTable) -> int:
        expired = _files(table).filter(pl.col("day") < oldest)["day"].n_unique()
        if expired > _DROPPED_AT_ONCE and not reason:
            raise DataError(
                f"history.retention_days = {settings.retention_days} would delete {expired:,} days "
                f"of the history, all before {oldest}; usual is one a night. Raise it, or give a "
                "reason: accept_reason in the trigger form"
            )
        if expired:
            table.delete(f"day < '{oldest}'")
        return expired

    figures = {"days_dropped": _commit(storage, f"before {oldest}", drop)}
    if day.weekday() == _SUNDAY:
        figures["files_compacted"] = int(
            _commit(storage, "compaction", lambda table: table.optimize.compact())[
                "numFilesRemoved"
            ]
        )
        figures["files_removed"] = _commit(storage, "vacuum", _vacuum)
    return figures


def _vacuum(table: DeltaTable) -> int:
    removed = table.vacuum(dry_run=False, full=True)  # full: also the files of killed writers
    table.create_checkpoint()
    table.cleanup_metadata()
    return len(removed)


def current_version(storage: Storage) -> int:
    """The table's current version. Raises StorageError if there is no history yet."""
    return _open(storage).version()


def read_events(
    storage: Storage,
    first: date,
    last: date,
    *,
    version: int,
    columns: Sequence[str] = tuple(SCHEMA),
) -> pl.DataFrame:
    """The events of the days first … last in a table version. Memory grows with the events.

    A row that the shop corrected on a later day can be in the history twice, if no run ingested
    both days. The later day's row is read.
    """
    key = ["event_id", "item_id"]
    # Delta and Polars have their own storage clients; that of Polars stops after 2 retries
    options = None if storage.root.startswith("file:") else {"max_retries": 10}
    try:
        table = pl.scan_delta(_open(storage, version), storage_options=options).filter(
            pl.col("day").is_between(first, last)
        )
        rows = retry(table.select(dict.fromkeys(["day", *key, *columns]).keys()).collect)
        return (
            rows.sort("day", maintain_order=True)
            .unique(key, keep="last", maintain_order=True)
            .select(columns)
        )
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            f"cannot read {storage.url(paths.HISTORY)} version {version}: {error_reason(error)}"
        ) from error


def data_files(storage: Storage, version: int) -> dict[date, list[str]]:
    """The sorted names of each day's data files in a table version, from the log.

    No file name is ever used again.
    """
    try:
        files = _files(_open(storage, version)).group_by("day").agg(pl.col("file").sort())
    except (DeltaError, OSError) as error:
        raise StorageError(
            f"cannot read {storage.url(paths.HISTORY)} version {version}: {error_reason(error)}"
        ) from error
    return dict(files.iter_rows())


def rows_by_day(storage: Storage, version: int | None = None) -> dict[date, int]:
    """The number of rows of each day that has rows, from the log; empty without a history.

    version : of the table; None: the newest
    """
    url = storage.url(paths.HISTORY)
    try:
        if not retry(lambda: DeltaTable.is_deltatable(url, storage_options=storage.options)):
            return {}
        files = _files(_open(storage, version))
        rows = files.group_by("day").agg(pl.col("rows").sum()).sort("day")
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot read {url}: {error_reason(error)}") from error
    return dict(rows.filter(pl.col("rows") > 0).iter_rows())


def history_status(storage: Storage, through: date) -> HistoryStatus:
    """The days of the history up to `through`, present and missing; no data file is read."""
    table = _open(storage)
    try:
        present = (
            _files(table)
            .group_by("day")
            .agg(pl.col("rows").sum(), pl.col("written").max())
            .filter(pl.col("rows") > 0)
            .sort("day")
            .with_columns(
                of_median=pl.col("rows")
                / pl.col("rows").rolling_median_by("day", "28d", closed="left")
            )
        )
        commits = [_read_commit(entry) for entry in retry(lambda: table.history(20))]
    except (DeltaError, OSError) as error:
        raise StorageError(
            f"cannot read {storage.url(paths.HISTORY)}: {error_reason(error)}"
        ) from error
    dates: list[date] = [*present["day"], through]
    calendar = pl.DataFrame({"day": pl.date_range(min(dates), max(dates), eager=True)})
    days = calendar.join(present, on="day", how="left", maintain_order="left")
    return HistoryStatus(
        storage.url(paths.HISTORY),
        days.select("day", "rows", "of_median", "written"),
        table.version(),
        next((commit for commit in commits if commit.metadata), None),
    )


def _read_commit(entry: Mapping[str, Any]) -> HistoryCommit:
    committed_at = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
    try:
        metadata = json.loads(entry.get("userMetadata", "{}"))
    except ValueError:  # another program's commit
        metadata = {}
    return HistoryCommit(
        entry["version"], committed_at, metadata if isinstance(metadata, dict) else {}
    )


def _files(table: DeltaTable) -> pl.DataFrame:
    """The files of the table: ``file, day, rows, written`` (UTC), from its log."""
    return pl.DataFrame(table.get_add_actions(flatten=True)).select(
        file="path",
        day=pl.col("partition.day").cast(pl.Date),
        rows="num_records",
        written=pl.from_epoch("modification_time", "ms").dt.replace_time_zone("UTC"),
    )


def _open(storage: Storage, version: int | None = None) -> DeltaTable:
    url = storage.url(paths.HISTORY)
    try:
        return retry(lambda: DeltaTable(url, version=version, storage_options=storage.options))
    except TableNotFoundError as error:
        raise StorageError(
            f"no history at {url}: run recsys_ingest for at least two days first"
        ) from error
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot read {url}: {error_reason(error)}") from error


def _commit(storage: Storage, subject: str, change: Callable[[DeltaTable], T]) -> T:
    """Apply an idempotent change to the newest table; the table is created if it is missing."""
    url = storage.url(paths.HISTORY)
    try:
        return retry(lambda: change(_open_or_create(storage)), CommitFailedError)
    except (DeltaError, OSError) as error:
        if "failed validation check" in str(
            error
        ):  # the error shows rows, which must not be logged
            rules = "; ".join(["only value may be empty", *CONSTRAINTS.values()])
            raise DataError(
                f"{url} refuses rows of {subject}; its rules are: {rules}. "
                "Correct include/contract.yaml"
            ) from None
        raise StorageError(f"cannot write {url}: {error_reason(error)}") from error


def _open_or_create(storage: Storage) -> DeltaTable:
    """The newest table with its constraints; it is created if it is missing."""
    url = storage.url(paths.HISTORY)
    try:
        table = DeltaTable(url, storage_options=storage.options)
    except TableNotFoundError:
        table = DeltaTable.create(
            url,
            _delta_schema(),
            mode="ignore",
            partition_by=["day"],
            configuration=_CONFIGURATION,
            storage_options=storage.options,
        )
    if PrimitiveType("long") in (column.type for column in table.schema().fields):
        _convert(table)
    prefix = "delta.constraints."
    present = {
        name.removeprefix(prefix)
        for name in table.metadata().configuration
        if name.startswith(prefix)
    }
    if _FORMER_CONSTRAINT in present:
        table.alter.drop_constraint(_FORMER_CONSTRAINT)
    if missing := {name: rule for name, rule in CONSTRAINTS.items() if name not in present}:
        table.alter.add_constraint(missing)
    return table


def _delta_schema() -> Schema:
    columns = Schema.from_arrow(pl.Schema(SCHEMA)).fields
    return Schema(
        [Field(column.name, column.type, nullable=column.name == "value") for column in columns]
    )


def _convert(table: DeltaTable) -> None:
    """Write a table of an earlier release, with whole quantities, once again in one commit.

    Delta cuts off fractions that are written into a column of integers. Memory grows by some 130
    bytes a row.
    """
    import pyarrow as pa  # it starts a thread

    log.warning("converting %s to quantities with fractions, once", table.table_uri)
    schema = pa.schema(_delta_schema().to_arrow())
    frames = pl.scan_delta(table).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    batches = (
        batch
        for frame in frames.collect_batches(maintain_order=True)
        for batch in frame.to_arrow().cast(schema).to_batches()
    )
    write_deltalake(
        table,
        pa.RecordBatchReader.from_batches(schema, batches),
        mode="overwrite",
        schema_mode="overwrite",
    )
