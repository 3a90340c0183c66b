"""The six cleaning steps of a run against the same rules in plain pandas.

Makes one raw object of the demo shop, four days that a run reads in one go, and cleans it with
`recsys_ops.ingest.clean_day`, as the DAG does, and with pandas_steps.py. Every step runs in a
process of its own, from Parquet to Parquet; imports are not timed. All ways must keep the same rows
with the same values and reject as many rows for each reason, else the benchmark fails.
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial, reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from benchmarks.cleaning import pandas_steps
from benchmarks.harness import Cost, Report, apart
from recsys_ops import cleaning
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.demo import events, shop
from recsys_ops.ingest.clean_day import kept_rows, run_step
from recsys_ops.ingest.deliveries import write_delivery
from recsys_ops.ingest.steps import LAST_STEP, STEPS
from recsys_ops.settings import CleaningSettings, StaffSettings, include_dir
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage

OPENS = date(2026, 5, 1)
# as many as a run reads with source.lookback_days = 3
DAYS = [OPENS + timedelta(days=4 + n) for n in range(4)]
DAY = DAYS[-1]
SETTINGS = CleaningSettings(
    staff=StaffSettings(
        email_domains=(shop.OFFICE_DOMAIN,),
        networks=(shop.OFFICE_NETWORK,),
        test_account_pattern=shop.TEST_ACCOUNTS,
    )
)
RIVALS = {"pandas, text in Arrow": "pyarrow", "pandas, text as Python objects": "python"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--ours-only", action="store_true", help="without pandas, which holds all rows in memory"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    rows = 100_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory(prefix="recsys-benchmark-") as folder:
        apart(deliver, folder, rows)
        size = raw(folder).stat().st_size / 2**20
        print(f"{rows:,} raw rows of {len(DAYS)} days, {size:,.0f} MiB of Parquet")
        costs = {}
        costs["recsys_ops"], reasons = measure("recsys_ops", partial(apart, clean, folder), report)
        for name, text in {} if options.ours_only else RIVALS.items():
            costs[name], others = measure(name, partial(plain, folder, text), report)
            assert reasons == others, f"not the same rows are rejected: {reasons} and {others}"
            kept, _ = apart(compared, folder)
            print(f"The same {kept:,} rows with the same values, as many rejections a reason")
    table = report.table(
        f"steps, {rows:,} rows",
        {
            f"{rows:,} rows": "",
            "seconds": ".1f",
            "CPU seconds": ".1f",
            "rows/s": ",.0f",
            "peak MiB": ",.0f",
            "× seconds": ".1f",
            "× CPU seconds": ".1f",
            "× memory": ".1f",
        },
    )
    own = costs["recsys_ops"]
    for name, cost in costs.items():
        table.add(
            name,
            cost.seconds,
            cost.cpu_seconds,
            rows / cost.seconds,
            cost.peak_mib,
            cost.seconds / own.seconds,
            cost.cpu_seconds / own.cpu_seconds,
            cost.peak_mib / own.peak_mib,
        )


def measure(
    name: str, run_one: Callable[[str], tuple[dict[str, Any], Cost]], report: Report
) -> tuple[Cost, dict[str, dict[str, int]]]:
    """Run all steps; return the sum of their costs, and the rejections by step and reason."""
    table = report.table(
        f"steps, {name}",
        {
            name: "",
            "rows in": ",",
            "kept": ",",
            "rejected": ",",
            "seconds": ".2f",
            "of it files": ".2f",
            "CPU s": ".2f",
            "peak MiB": ",.0f",
        },
    )
    costs, reasons = [], {}
    for step in STEPS:
        figures, cost = run_one(step)
        table.add(
            step,
            figures["rows_in"],
            figures["kept"],
            sum(figures["reasons"].values()),
            cost.seconds,
            figures.get("files"),
            cost.cpu_seconds,
            cost.peak_mib,
        )
        costs.append(cost)
        reasons[step] = figures["reasons"]
    total = reduce(add, costs)
    table.add("all", None, None, None, total.seconds, None, total.cpu_seconds, total.peak_mib)
    return total, reasons


def deliver(folder: str, rows: int) -> None:
    """The raw object as `extract_delta` would leave it, `rows` rows long."""
    # the week makes these four days busier by 3 %
    size = shop.ShopSize(users=max(100, rows // 20), items=5_000, events_per_day=rows // len(DAYS))
    demo = shop.Shop(size, OPENS)
    storage = Storage(f"file://{folder}")
    parts = [Path(folder, f"{day}.parquet") for day in DAYS]
    for day, part in zip(DAYS, parts, strict=True):
        delivered(demo, day, events.day_events(demo, day)).write_parquet(part)
    frame = pl.scan_parquet(parts).head(rows)
    write_delivery(storage, DAY, frame, dict.fromkeys(DAYS, rows // len(DAYS)), "benchmark")


def raw(folder: str) -> Path:
    return Path(folder, current_generation(Storage(f"file://{folder}"), paths.RAW, DAY))


def delivered(demo: shop.Shop, day: date, recorded: pl.DataFrame) -> pl.DataFrame:
    """The rows as include/sql/extract_events.sql delivers them, with the accounts' roles."""
    accounts = shop.users(demo, day).select("user_id", "email", "role")
    rows = recorded.select(events.COLUMNS).rename({"line_id": "row_id"})
    account = pl.coalesce("user_id", "customer_ref")
    joined = rows.join(
        accounts, left_on=account, right_on="user_id", how="left", maintain_order="left"
    )
    return joined.select(*rows.columns, "email", "role")


def clean(folder: str, step: str) -> dict[str, Any]:
    return run_step(Storage(f"file://{folder}"), step, DAY, SETTINGS)


def plain(folder: str, text: str, step: str) -> tuple[dict[str, Any], Cost]:
    """The step in pandas, on the rows that the step before it kept."""
    before = {"align_schema": raw(folder)}
    before |= {after: Path(folder, f"{name}.parquet") for name, after in pairwise(STEPS)}
    kept, rejected = Path(folder, f"{step}.parquet"), Path(folder, f"{step}.rejected.parquet")
    contract = cleaning.load_contract(include_dir() / SETTINGS.contract)
    return apart(pandas_steps.clean, step, before[step], kept, rejected, SETTINGS, contract, text)


def compared(folder: str) -> int:
    """The number of rows that both kept. Raises AssertionError when rows or values differ."""
    key = ["event_id", "item_id"]
    kept = (
        kept_rows(Storage(f"file://{folder}"), LAST_STEP, DAY)[0]
        .select(*SCHEMA)
        .collect()
        .sort(key)
    )
    rival = (
        pl.read_parquet(Path(folder, f"{LAST_STEP}.parquet"))
        .select(pl.col(name).cast(SCHEMA[name]) for name in SCHEMA)
        .sort(key)
    )
    assert_frame_equal(kept, rival, check_exact=True)
    return kept.height
