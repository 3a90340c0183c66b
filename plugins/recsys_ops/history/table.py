"""The history: a Delta table of clean events, one partition per day, that every training reads.

Replacing days is one atomic commit: a reader and a killed writer never leave or see half a day.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar, get_args

import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recsys_ops.errors import DataError, StorageError
from recsys_ops.settings import EventType, HistorySettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage, error_reason, retry

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
# The table itself refuses other rows, whoever writes them. NaN is above every number.
CONSTRAINTS: Mapping[str, str] = {
    "event_type_is_known": f"event_type IN {get_args(EventType)}",
    "quantity_is_positive": "quantity >= 1",
    "value_is_a_price": "value IS NULL OR (value >= 0 AND value < 1e300)",
}
_CONFIGURATION = {
    # an open reads the last checkpoint and at most this many commits after it
    "delta.checkpointInterval": "10",
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_SUNDAY = 6

T = TypeVar("T")


@dataclass(frozen=True)
class HistoryCommit:
    """One commit of the table: `metadata` is that of `replace_days`, empty for upkeep."""

    version: int
    committed_at: datetime
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class HistoryStatus:
    """What the history holds, from the table's log alone.

    `days` : one row a calendar day from the first in history: ``day, rows`` (null: missing), ``of_median`` (rows over the
    median of the days present among the 28 before it; null: none are) and ``written`` (UTC).
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
    """Make the days first … last hold exactly `events` (canonical frame); days outside are untouched.

    `facts` (JSON) stay with the commit as its ``userMetadata``: which run, which contract, which lists. Runs of any days may
    commit at the same time, the same day included: a lost race is tried again on the newer table. Returns a version of the
    table that holds the rows. Raises DataError if an event lies outside the days or breaks a constraint.
    """
    rows = events.with_columns(day=pl.col("recorded_at").dt.date()).select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
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


def apply_retention(storage: Storage, day: date, settings: HistorySettings) -> dict[str, int]:
    """Drop the days that are more than `retention_days` older than `day`; on a Sunday, compact and vacuum as well.

    Files that no version of the last 7 days needs are removed, and commits older than 30 days that a checkpoint covers.
    Returns the numbers of days dropped, files compacted and files removed.
    """
    oldest = day - timedelta(days=settings.retention_days)

    def drop(table: DeltaTable) -> int:
        expired = _files(table).filter(pl.col("day") < oldest)["day"].n_unique()
        if expired:
            table.delete(f"day < '{oldest}'")
        return expired

    done = {"days_dropped": _commit(storage, f"before {oldest}", drop)}
    if day.weekday() == _SUNDAY:
        done["files_compacted"] = int(
            _commit(storage, "compaction", lambda table: table.optimize.compact())[
                "numFilesRemoved"
            ]
        )
        done["files_removed"] = _commit(storage, "vacuum", _clear)
    return done


def _clear(table: DeltaTable) -> int:
    removed = table.vacuum(dry_run=False, full=True)  # full: what killed writers left, too
    table.create_checkpoint()
    table.cleanup_metadata()
    return len(removed)


def current_version(storage: Storage) -> int:
    """The table's current version. Raises StorageError when there is no history yet."""
    return _open(storage).version()


def read_events(
    storage: Storage,
    first: date,
    last: date,
    *,
    version: int,
    columns: Sequence[str] = tuple(SCHEMA),
) -> pl.DataFrame:
    """The events of the days first … last as of a table version. Memory grows with the events of the window.

    A row that the shop corrected on a later day may stand in the history twice, where the two days were not ingested by one
    run: the later day's is read.
    """
    key = ["event_id", "item_id"]
    # Delta and Polars have clients of their own; Polars' gives up after 2 retries
    patience = None if storage.root.startswith("file:") else {"max_retries": 10}
    try:
        table = pl.scan_delta(_open(storage, version), storage_options=patience).filter(
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
    """The data files of each day as of a table version, by their sorted names, from the log: what is never the same again."""
    try:
        named = _files(_open(storage, version)).group_by("day").agg(pl.col("file").sort())
    except (DeltaError, OSError) as error:
        raise StorageError(
            f"cannot read {storage.url(paths.HISTORY)} version {version}: {error_reason(error)}"
        ) from error
    return dict(named.iter_rows())


def history_status(storage: Storage, through: date) -> HistoryStatus:
    """What is there and what is missing from the first day in history to `through`; no data file is read."""
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
    known: list[date] = [*present["day"], through]
    calendar = pl.DataFrame({"day": pl.date_range(min(known), max(known), eager=True)})
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


def _commit(storage: Storage, what: str, change: Callable[[DeltaTable], T]) -> T:
    """Apply a change, which may be done twice, to the newest table, made when there is none."""
    url = storage.url(paths.HISTORY)
    try:
        return retry(lambda: change(_make(storage)), CommitFailedError)
    except (DeltaError, OSError) as error:
        if "failed validation check" in str(error):  # it shows rows, which no log may hold
            rules = "; ".join(["only value may be empty", *CONSTRAINTS.values()])
            raise DataError(
                f"{url} refuses rows of {what}, its rules are: {rules}. Mend include/contract.yaml"
            ) from None
        raise StorageError(f"cannot write {url}: {error_reason(error)}") from error


def _make(storage: Storage) -> DeltaTable:
    """The newest table, made when there is none, with its constraints."""
    url = storage.url(paths.HISTORY)
    try:
        table = DeltaTable(url, storage_options=storage.options)
    except TableNotFoundError:
        columns = Schema.from_arrow(pl.Schema(SCHEMA)).fields
        schema = Schema(
            [Field(column.name, column.type, nullable=column.name == "value") for column in columns]
        )
        table = DeltaTable.create(
            url,
            schema,
            mode="ignore",
            partition_by=["day"],
            configuration=_CONFIGURATION,
            storage_options=storage.options,
        )
    there = table.metadata().configuration
    missing = {
        name: rule for name, rule in CONSTRAINTS.items() if f"delta.constraints.{name}" not in there
    }
    if missing:
        table.alter.add_constraint(missing)
    return table
