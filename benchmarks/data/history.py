"""The cost of a day as the history grows.

Fills a history with one commit a day, as the ingest does. Then it times the commit of one more day
(its rows are there already, so that every commit replaces as much), `status`, and the reading of
the last 30 days. The bytes are those that the process read from files (``/proc/self/io``): the log,
and no data of other days.
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Report, timed
from recsys_ops.history.table import current_version, history_status, read_events, replace_days
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

FIRST = date(2025, 1, 1)
TIMES = 11


def events(day: date, rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(day.toordinal())
    moment = pl.lit(datetime(day.year, day.month, day.day, tzinfo=UTC)) + pl.duration(
        seconds=pl.Series(rng.integers(0, 86_400, rows))
    )
    return pl.DataFrame(
        {"user_id": rng.integers(0, 50_000, rows), "item_id": rng.integers(0, 5_000, rows)}
    ).select(
        recorded_at=moment,
        event_id=pl.format("{}-{}", pl.lit(str(day)), pl.int_range(rows)),
        user_id=pl.format("u{}", "user_id"),
        item_id=pl.format("i{}", "item_id"),
        event_type=pl.lit("view"),
        event_time=moment,
        quantity=pl.lit(1),
        value=pl.lit(None),
    )


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def measure(call: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds and MiB read, the medians."""
    seconds, read = [], []
    for _ in range(TIMES):
        before = bytes_read()
        seconds.append(timed(call)[1].seconds)
        read.append(bytes_read() - before)
    return median(seconds) * 1000, median(read) / 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows-a-day", type=int, default=20_000)
    parser.add_argument("--days", type=int, nargs="+", default=[30, 365])


def run(options: argparse.Namespace, report: Report) -> None:
    sizes, rows_a_day = ([30], 1_000) if options.quick else (options.days, options.rows_a_day)
    table = report.table(
        "history",
        {
            "days in history": "",
            "commit of a day, ms": ".0f",
            "read by it, MiB": ".2f",
            "`status`, ms": ".0f",
            "last 30 days read, ms": ".0f",
            "log, MiB": ".1f",
        },
        f"{rows_a_day:,} rows a day, medians of {TIMES}",
    )
    for days in sizes:
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage(f"file://{folder}")
            for number in range(days):
                day = FIRST + timedelta(days=number)
                replace_days(storage, events(day, rows_a_day), day, day)
            last, rows = day, events(day, rows_a_day)
            newest, month = current_version(storage), day - timedelta(days=29)
            commit, read = measure(partial(replace_days, storage, rows, last, last))
            status, _ = measure(partial(history_status, storage, last))
            window, _ = measure(partial(read_events, storage, month, last, version=newest))
            log = Path(folder, paths.HISTORY, "_delta_log").iterdir()
            size = sum(file.stat().st_size for file in log) / 2**20
            table.add(days, commit, read, status, window, size)
