"""Encoded days: a cache of the history with ids as integers, one object a day.

The matrix is built from them faster and in less memory. Each object is made from one day's data
files alone, so the order of the days does not matter. Any object may be deleted at any time.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import get_args

import polars as pl

from recsys_ops.errors import DataError, StorageError
from recsys_ops.history.table import data_files, read_events, rows_by_day
from recsys_ops.settings import EventType
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_READERS = 4
_EVENT_TYPES = pl.Enum(get_args(EventType))
_IDS = ("user_id", "item_id")
# A shop corrects a few rows of a day later. Ids that restart or collide repeat many. Of a day with
# fewer such rows nothing is said.
_UNUSUAL_SHARE, _IMPLAUSIBLE_SHARE, _UNUSUAL_ROWS = 0.05, 0.5, 20
_ROW = {
    "event": pl.UInt64(),
    "user": pl.UInt32(),
    "item": pl.UInt32(),
    "event_type": _EVENT_TYPES,
    "second": pl.UInt32(),
}
_OBJECT = pl.Schema({**_ROW, **dict.fromkeys(_IDS, pl.String())})
_READ = {
    "day": pl.Date(),
    "user_id": pl.Enum([]),
    "item_id": pl.Enum([]),
    "event_type": _EVENT_TYPES,
    "second": pl.UInt32(),
}


def read_encoded_events(storage: Storage, first: date, last: date, *, version: int) -> pl.DataFrame:
    """The events of the days first … last in a version of the history.

    Returns ``day, user_id, item_id, event_type, second``: the events of `read_events`, with the ids
    as Enum of the window's ascending ids and the event time in whole seconds since 1970 (UInt32).
    Events are identified by a hash of 64 bits. A day whose object is missing, damaged or made from
    other data files is read from the history and its object is written. Memory grows by some 60
    bytes for each event, with the different ids, and with the rows of four days.
    """
    files = {
        day: names
        for day, names in sorted(data_files(storage, version).items())
        if first <= day <= last
    }
    categories = {name: pl.Categories.random() for name in _IDS}
    with ThreadPoolExecutor(_READERS) as pool:
        days = list(
            pool.map(
                lambda day: _rows(_day(storage, day, files[day], version), day, categories), files
            )
        )
    if not days:
        return pl.DataFrame(schema=_READ)
    rows = _newest(pl.concat(days))
    return rows.with_columns(_ascending(rows[name], categories[name]) for name in _IDS).select(
        _READ.keys()
    )


def check_superseded(
    storage: Storage, events: pl.DataFrame, first: date, last: date, *, version: int
) -> int:
    """Count the rows that `read_encoded_events` left out because a later day has their event.

    events : what it returned for these days

    A day that has lost more than a twentieth of its rows is named in a warning. Raises DataError
    where a day, or all days together, have lost more than half: then event ids are not unique.
    """
    rows = {
        day: count for day, count in rows_by_day(storage, version).items() if first <= day <= last
    }
    days = (
        pl.DataFrame({"day": [*rows], "rows": [*rows.values()]}, {"day": pl.Date, "rows": pl.Int64})
        .join(events.group_by("day").agg(read=pl.len()), on="day", how="left")
        .with_columns(superseded=pl.col("rows") - pl.col("read").fill_null(0))
        .with_columns(share=pl.col("superseded") / pl.col("rows"))
    )
    superseded, total = int(days["superseded"].sum()), int(days["rows"].sum())
    many = days.filter(pl.col("superseded") >= _UNUSUAL_ROWS).sort("share", "day", descending=True)
    worst = next(many.iter_rows(named=True), None)
    if not worst or worst["share"] <= _UNUSUAL_SHARE:
        return superseded
    text = (
        f"event_id repeats across days: {worst['superseded']:,} of {worst['rows']:,} rows of "
        f"{worst['day']} have an event and an item that a later day has, too, and so have "
        f"{superseded:,} of the {total:,} rows of {first} … {last}; only the later rows count. "
        "Make event_id unique in include/sql, for example by day and id, and ingest the days again"
    )
    if max(worst["share"], superseded / total) > _IMPLAUSIBLE_SHARE:
        raise DataError(text)
    log.warning("%s", text)
    return superseded


def encode_events(events: pl.DataFrame) -> pl.DataFrame:
    """Encode a day's events (``event_id, item_id, user_id, event_type, event_time``).

    Returns a DataFrame, (n_rows, 7): ``event``, a hash of event id and item id; ``user`` and
    ``item``, the positions of the ids among the day's own; ``event_type`` and ``second``, sorted;
    and the columns ``user_id`` and ``item_id``, the day's ids in ascending order, filled up with
    nulls.
    """
    users, items = (events[name].unique().sort() for name in _IDS)
    rows = events.select(
        event=events.select("event_id", "item_id").hash_rows(),
        user=pl.col("user_id").cast(pl.Enum(users)).to_physical().cast(pl.UInt32),
        item=pl.col("item_id").cast(pl.Enum(items)).to_physical().cast(pl.UInt32),
        event_type=pl.col("event_type").cast(_EVENT_TYPES),
        second=pl.col("event_time").dt.epoch("s").cast(pl.UInt32),
    ).sort("user", "item", "event_type", "event")
    return rows.with_columns(
        ids.extend_constant(None, rows.height - len(ids)) for ids in (users, items)
    )


def _day(storage: Storage, day: date, files: Sequence[str], version: int) -> pl.DataFrame:
    """The encoded day, written again unless its object was made from these files."""
    path = paths.encoded(day)
    # another version of Polars may hash differently
    origin = {"files": " ".join(files), "polars": pl.__version__}
    try:
        rows, metadata = storage.scan_parquet(path)
        if metadata.items() >= origin.items():
            encoded = rows.collect()
            # an object of another release may have other columns
            if encoded.schema == _OBJECT and metadata.get("digest") == _digest(encoded):
                return encoded
    except (StorageError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        pass  # missing or damaged
    log.info("encoding %s from the history", day)
    columns = ["event_id", *_IDS, "event_type", "event_time"]
    encoded = encode_events(read_events(storage, day, day, version=version, columns=columns))
    storage.write_parquet(path, encoded, {**origin, "digest": _digest(encoded)})
    return encoded


def _digest(encoded: pl.DataFrame) -> str:
    return f"{encoded.height} {encoded.hash_rows().sum()}"


def _rows(
    encoded: pl.DataFrame, day: date, categories: Mapping[str, pl.Categories]
) -> pl.DataFrame:
    """A day's rows with the ids as Categorical; all days share `categories`, in no order."""
    users, items = (
        encoded[name].drop_nulls().cast(pl.Categorical(categories[name])) for name in _IDS
    )
    ids = users.gather(encoded["user"]), items.gather(encoded["item"])
    return encoded.select("event", "event_type", "second", *ids, day=pl.lit(day))


def _ascending(column: pl.Series, categories: pl.Categories) -> pl.Series:
    """Categorical ids as Enum of the ascending ids of all days."""
    ids = categories.to_series()
    return ids.cast(pl.Enum(ids.sort())).gather(column.to_physical()).alias(column.name)


def _newest(events: pl.DataFrame) -> pl.DataFrame:
    """The last row of each event that is in several days (see `read_events`), and all others."""
    hashes = events["event"].sort()
    repeated_hashes = hashes.filter(hashes == hashes.shift())
    event = pl.col("event")
    if len(repeated_hashes):
        repeated = (
            events.select("event").with_row_index().filter(event.is_in(repeated_hashes.implode()))
        )
        superseded = repeated.filter(~event.is_last_distinct())["index"]
        events = events.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(superseded.implode()))
    return events
