"""``python benchmarks/history.py [--rows 20000] [--days 30 365]``: what a night costs as the history grows.

Fills a history of so many days, one commit a day as the nights do, then times the commit of one more day (its rows are there
already, so that every commit replaces as much), `status`, and the reading of the last 30 days. ``bytes read`` is what the
process read from files (``/proc/self/io``): the log, and no data of other days.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from measure import machine

from recsys_ops.history.table import current_version, history_status, read_events, replace_days
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

FIRST = date(2025, 1, 1)
TIMES = 11


def events(day: date, rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(day.toordinal())
    at = pl.lit(datetime(day.year, day.month, day.day, tzinfo=UTC)) + pl.duration(
        seconds=pl.Series(rng.integers(0, 86_400, rows))
    )
    return pl.DataFrame(
        {"user_id": rng.integers(0, 50_000, rows), "item_id": rng.integers(0, 5_000, rows)}
    ).select(
        recorded_at=at,
        event_id=pl.format("{}-{}", pl.lit(str(day)), pl.int_range(rows)),
        user_id=pl.format("u{}", "user_id"),
        item_id=pl.format("i{}", "item_id"),
        event_type=pl.lit("view"),
        event_time=at,
        quantity=pl.lit(1),
        value=pl.lit(None),
    )


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def cost(call: Callable[[], Any]) -> str:
    seconds, read = [], []
    for _ in range(TIMES):
        began, before = time.perf_counter(), bytes_read()
        call()
        seconds.append(time.perf_counter() - began)
        read.append(bytes_read() - before)
    return f"{median(seconds) * 1000:>8.0f} ms {median(read) / 2**20:>8.2f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--days", type=int, nargs="+", default=[30, 365])
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.rows:,} rows a day; medians of {TIMES}")
    print(
        f"{'days':>5}  {'commit of a day':>20}  {'status':>20}  {'last 30 days read':>20}  {'log':>9}"
    )
    for days in arguments.days:
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage(f"file://{folder}")
            for number in range(days):
                day = FIRST + timedelta(days=number)
                replace_days(storage, events(day, arguments.rows), day, day)
            last, rows = day, events(day, arguments.rows)
            newest = current_version(storage)
            shown = [
                cost(lambda: replace_days(storage, rows, last, last)),  # noqa: B023
                cost(lambda: history_status(storage, last)),  # noqa: B023
                cost(lambda: read_events(storage, last - timedelta(days=29), last, version=newest)),  # noqa: B023
            ]
            log = sum(
                file.stat().st_size for file in Path(folder, paths.HISTORY, "_delta_log").iterdir()
            )
            print(f"{days:>5}  {'  '.join(shown)}  {log / 2**20:>5.1f} MiB")


if __name__ == "__main__":
    main()
