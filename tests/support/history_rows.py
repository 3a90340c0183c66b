"""Rows for the history table, typed by hand."""

from datetime import UTC, date, datetime

import polars as pl

from recsys_ops.history.table import current_version, read_events
from recsys_ops.storage.objects import Storage

FIRST = date(2026, 1, 1)  # a Thursday


SUNDAY = date(2026, 1, 4)


def events(day: date, count: int) -> pl.DataFrame:
    time = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
    frame = pl.DataFrame({"event_id": [f"{day}-{n}" for n in range(count)]})
    return frame.with_columns(
        recorded_at=pl.lit(time),
        event_time=pl.lit(time),
        user_id=pl.lit("u"),
        item_id=pl.lit("i"),
        event_type=pl.lit("view"),
        quantity=pl.lit(1),
        value=pl.lit(None),
        ip=pl.lit("192.0.2.1"),
    )


def counts(storage: Storage, first: date = FIRST) -> dict[date, int]:
    frame = read_events(storage, first, date(2026, 12, 31), version=current_version(storage))
    return dict(frame.group_by("day").len().sort("day").iter_rows())
