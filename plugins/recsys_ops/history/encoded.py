"""The history once more as integer codes, an object a day, from which the matrix is built fast and in little memory.

A cache: each object is made from one day's data files and from nothing else, so that the order of the days does not matter, and
any object may be deleted at any time.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import get_args

import polars as pl

from recsys_ops.errors import StorageError
from recsys_ops.history.table import data_files, read_events
from recsys_ops.settings import EventType
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_READERS = 4
_KINDS = pl.Enum(get_args(EventType))
_IDS = ("user_id", "item_id")
_ROW = {
    "event": pl.UInt64(),
    "user": pl.UInt32(),
    "item": pl.UInt32(),
    "event_type": _KINDS,
    "second": pl.UInt32(),
}
_OBJECT = pl.Schema({**_ROW, **dict.fromkeys(_IDS, pl.String())})
_READ = {
    "day": pl.Date(),
    "user_id": pl.Enum([]),
    "item_id": pl.Enum([]),
    "event_type": _KINDS,
    "second": pl.UInt32(),
}


def read_encoded_events(storage: Storage, first: date, last: date, *, version: int) -> pl.DataFrame:
    """The events of the days first … last as of a version of the history: ``day, user_id, item_id, event_type, second``.

    The events of `history.read`, told apart by a hash of 64 bits, with the ids as Enum of the window's ascending ids and the
    event time as whole seconds since 1970 (UInt32). Days whose objects are missing, damaged or made from other data files are
    read from the history, and their objects written. Memory grows with the events, some 60 bytes each, with the different ids
    and with the rows of four days.
    """
    files = {
        day: names
        for day, names in sorted(data_files(storage, version).items())
        if first <= day <= last
    }
    met = {name: pl.Categories.random() for name in _IDS}
    with ThreadPoolExecutor(_READERS) as pool:
        days = list(
            pool.map(lambda day: _rows(_day(storage, day, files[day], version), day, met), files)
        )
    if not days:
        return pl.DataFrame(schema=_READ)
    rows = _newest(pl.concat(days))
    return rows.with_columns(_ascending(rows[name], met[name]) for name in _IDS).select(
        _READ.keys()
    )


def encode_events(events: pl.DataFrame) -> pl.DataFrame:
    """A day's events (``event_id, item_id, user_id, event_type, event_time``) as its object holds them.

    Returns a DataFrame, (n_rows, 7): ``event``, a hash of event id and item id, ``user`` and ``item``, the ids' places among the
    day's own, ``event_type`` and ``second``, sorted; beside them, filled up with nulls, the day's ids in ascending order.
    """
    users, items = (events[name].unique().sort() for name in _IDS)
    rows = events.select(
        event=events.select("event_id", "item_id").hash_rows(),
        user=pl.col("user_id").cast(pl.Enum(users)).to_physical().cast(pl.UInt32),
        item=pl.col("item_id").cast(pl.Enum(items)).to_physical().cast(pl.UInt32),
        event_type=pl.col("event_type").cast(_KINDS),
        second=pl.col("event_time").dt.epoch("s").cast(pl.UInt32),
    ).sort("user", "item", "event_type", "event")
    return rows.with_columns(
        ids.extend_constant(None, rows.height - len(ids)) for ids in (users, items)
    )


def _day(storage: Storage, day: date, files: Sequence[str], version: int) -> pl.DataFrame:
    """The day's object, made again where it is not what was made of these files."""
    path = paths.encoded(day)
    # the hashes of another Polars may be others
    made_of = {"files": " ".join(files), "polars": pl.__version__}
    try:
        rows, metadata = storage.scan_parquet(path)
        if metadata.items() >= made_of.items():
            found = rows.collect()
            if found.schema == _OBJECT and metadata.get("digest") == _digest(
                found
            ):  # another release's has other columns
                return found
    except (StorageError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        pass  # missing or damaged
    log.info("coding %s from the history", day)
    columns = ["event_id", *_IDS, "event_type", "event_time"]
    made = encode_events(read_events(storage, day, day, version=version, columns=columns))
    storage.write_parquet(path, made, {**made_of, "digest": _digest(made)})
    return made


def _digest(coded: pl.DataFrame) -> str:
    return f"{coded.height} {coded.hash_rows().sum()}"


def _rows(coded: pl.DataFrame, day: date, met: Mapping[str, pl.Categories]) -> pl.DataFrame:
    """A day's rows, the ids as Categorical of those that the days have met so far, in no order."""
    users, items = (coded[name].drop_nulls().cast(pl.Categorical(met[name])) for name in _IDS)
    ids = users.gather(coded["user"]), items.gather(coded["item"])
    return coded.select("event", "event_type", "second", *ids, day=pl.lit(day))


def _ascending(column: pl.Series, met: pl.Categories) -> pl.Series:
    """Categorical ids as Enum of the ascending ids that all days have met."""
    ids = met.to_series()
    return ids.cast(pl.Enum(ids.sort())).gather(column.to_physical()).alias(column.name)


def _newest(events: pl.DataFrame) -> pl.DataFrame:
    """Of an event that stands in several days (see `history.read`) the last day's row."""
    hashes = events["event"].sort()
    again = hashes.filter(hashes == hashes.shift())
    event = pl.col("event")
    if len(again):
        repeated = events.select("event").with_row_index().filter(event.is_in(again.implode()))
        superseded = repeated.filter(~event.is_last_distinct())["index"]
        events = events.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(superseded.implode()))
    return events
