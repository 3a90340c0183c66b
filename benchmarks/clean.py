"""``python benchmarks/clean.py [ROWS] [--ours-only]``: the cleaning steps of a run against the same rules in plain pandas.

Makes one raw object of the demo shop, four days that a run reads in one go, and cleans it with `recsys_ops.ingest.clean_day`, as the DAG
does, and with `clean_pandas.py`. Every step runs in a process of its own, from Parquet to Parquet; imports are not timed. All
must keep the same rows with the same values and reject as many for each reason, else the benchmark fails.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import fields
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from measure import Cost, apart, machine
from polars.testing import assert_frame_equal

from recsys_ops import cleaning
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.demo import events, shop
from recsys_ops.ingest.clean_day import kept_rows, run_step
from recsys_ops.ingest.steps import LAST_STEP, STEPS
from recsys_ops.settings import CleaningSettings, StaffSettings, include_dir
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

OPENS = date(2026, 5, 1)
DAYS = [
    OPENS + timedelta(days=4 + n) for n in range(4)
]  # as many as a run reads with source.lookback_days = 3
DAY = DAYS[-1]
SETTINGS = CleaningSettings(
    staff=StaffSettings(
        email_domains=(shop.OFFICE_DOMAIN,),
        networks=(shop.OFFICE_NETWORK,),
        test_account_pattern=shop.TEST_ACCOUNTS,
    )
)
RIVALS = {"pandas, text in Arrow": "pyarrow", "pandas, text as Python objects": "python"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument(
        "--ours-only", action="store_true", help="without pandas, which holds all rows"
    )
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="recsys-benchmark-") as folder:
        apart("clean", "deliver", folder, options.rows)
        size = Path(folder, paths.raw(DAY)).stat().st_size / 2**20
        print(f"{options.rows:,} raw rows of {len(DAYS)} days, {size:,.0f} MiB of Parquet")
        ours, reasons = table("recsys_ops", options.rows, partial(apart, "clean", "clean", folder))
        if options.ours_only:
            return
        for name, text in RIVALS.items():
            theirs, others = table(name, options.rows, partial(plain, folder, text))
            assert reasons == others, f"not the same rows are rejected: {reasons} and {others}"
            rows, _ = apart("clean", "compared", folder)
            times = {
                cost.name: getattr(theirs, cost.name) / getattr(ours, cost.name)
                for cost in fields(Cost)
            }
            print(
                f"The same {rows:,} rows with the same values, as many rejects for each reason; compared with recsys_ops"
            )
            print(
                "{seconds:.1f} x the seconds, {cpu:.1f} x the CPU seconds, {peak:.1f} x the memory".format(
                    **times
                )
            )


def table(
    name: str, rows: int, run: Callable[[str], tuple[dict[str, Any], Cost]]
) -> tuple[Cost, dict[str, dict[str, int]]]:
    """Run all steps and print what each cost; returns the sum (of memory the peak) and the rejects by step and reason."""
    print(
        f"\n| {name} | rows in | kept | rejected | seconds | of it files | CPU s | peak MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    costs, reasons = [], {}
    for step in STEPS:
        figures, cost = run(step)
        rejected = sum(figures["reasons"].values())
        files = f"{figures['files']:.2f}" if "files" in figures else ""
        print(
            f"| {step} | {figures['rows_in']:,} | {figures['kept']:,} | {rejected:,} "
            f"| {cost.seconds:.2f} | {files} | {cost.cpu:.2f} | {cost.peak:,.0f} |",
            flush=True,
        )
        costs.append(cost)
        reasons[step] = figures["reasons"]
    total = Cost(
        sum(c.seconds for c in costs), sum(c.cpu for c in costs), max(c.peak for c in costs)
    )
    print(f"| all | | | | {total.seconds:.2f} | | {total.cpu:.2f} | {total.peak:,.0f} |")
    print(f"\n{name}: {rows / total.seconds:,.0f} rows/s")
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
    storage.sink_parquet(
        paths.raw(DAY), pl.scan_parquet(parts).head(rows), {"first_day": str(DAYS[0])}
    )


def delivered(demo: shop.Shop, day: date, recorded: pl.DataFrame) -> pl.DataFrame:
    """The rows as include/sql/extract_events.sql delivers them, with what the accounts say of themselves."""
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
    """The step in pandas, on what the step before it left."""
    before = {"align_schema": Path(folder, paths.raw(DAY))}
    before |= {after: Path(folder, f"{name}.parquet") for name, after in pairwise(STEPS)}
    kept, rejected = Path(folder, f"{step}.parquet"), Path(folder, f"{step}.rejected.parquet")
    contract = cleaning.load_contract(include_dir() / SETTINGS.contract)
    return apart(
        "clean_pandas", "clean", step, before[step], kept, rejected, SETTINGS, contract, text
    )


def compared(folder: str) -> int:
    """The number of rows that both kept. Raises AssertionError when they differ in a row or a value."""
    key = ["event_id", "item_id"]
    ours = (
        kept_rows(Storage(f"file://{folder}"), LAST_STEP, DAY)[0]
        .select(*SCHEMA)
        .collect()
        .sort(key)
    )
    theirs = (
        pl.read_parquet(Path(folder, f"{LAST_STEP}.parquet"))
        .select(pl.col(name).cast(SCHEMA[name]) for name in SCHEMA)
        .sort(key)
    )
    assert_frame_equal(ours, theirs, check_exact=True)
    return ours.height


if __name__ == "__main__":
    main()
