"""From a year of history to the matrices, in seconds and memory.

Fills a history, encodes its days, then builds the matrices of one run from the encoded days and in
plain pandas, each in a process of its own that starts from the storage. Both must give the same
matrices, else the benchmark fails. Items are drawn by Zipf's law, users by a log-normal activity;
they do about five things on a day they come. Events that are not the first of their pair repeat
one.
"""

import argparse
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
from scipy import sparse

from benchmarks.harness import Cost, Report, apart
from recsys_ops.cleaning.slow_bots import find_slow_bots
from recsys_ops.history.encoded import read_encoded_events
from recsys_ops.history.table import current_version, replace_days
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings, EventType, SlowBotSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

LAST = date(2026, 6, 30)
DAYS = 365
CONFIDENCE = ConfidenceSettings(window_days=DAYS)
EVALUATION = EvaluationSettings()
MONTH = 31
VISIT = 5  # a user's events of a day
SHARES: dict[EventType, float] = {
    "view": 0.8,
    "wishlist": 0.05,
    "cart": 0.09,
    "checkout": 0.03,
    "purchase": 0.03,
}


class Shape(NamedTuple):
    users: int
    items: int
    cells: int
    events: int


SHAPES = {
    "S": Shape(50_000, 3_000, 1_000_000, 1_800_000),
    "M": Shape(500_000, 30_000, 10_000_000, 18_000_000),
}


def fill(root: str, shape: Shape) -> None:
    """A history of `DAYS` days, a month a commit."""
    rng = np.random.default_rng(1)
    busy = np.cumsum(rng.lognormal(0, 1, shape.users))
    popular = np.cumsum(1 / (np.arange(shape.items) + 20))
    pairs = np.empty(0, dtype=np.int64)
    while len(pairs) < shape.cells:
        user, item = (
            np.searchsorted(up_to, rng.random(shape.cells // 4) * up_to[-1]).astype(np.int64)
            for up_to in (busy, popular)
        )
        pairs = np.unique(np.concatenate([pairs, user * shape.items + item]))
    rng.shuffle(pairs)
    pair = np.concatenate(
        [pairs[: shape.cells], rng.choice(pairs[: shape.cells], shape.events - shape.cells)]
    )
    pair = pair[np.argsort(pair // shape.items)]
    day_of_visit = rng.integers(0, DAYS, shape.events // VISIT + 1)
    age = day_of_visit[np.arange(shape.events) // VISIT]
    kind = rng.choice(len(SHARES), shape.events, p=list(SHARES.values()))
    storage = Storage(root)
    for youngest in range(0, DAYS, MONTH):
        chosen = np.flatnonzero((age >= youngest) & (age < youngest + MONTH))
        moment = pl.lit(datetime(LAST.year, LAST.month, LAST.day, 12, tzinfo=UTC)) - pl.duration(
            days=pl.Series(age[chosen])
        )
        rows = pl.DataFrame(
            {
                "event": chosen,
                "user": pair[chosen] // shape.items,
                "item": pair[chosen] % shape.items,
            }
        ).select(
            recorded_at=moment,
            event_id=pl.format("event-{}", "event"),
            user_id=pl.format("user-{}", "user"),
            item_id=pl.format("item-{}", "item"),
            event_type=pl.Series(np.array(list(SHARES))[kind[chosen]]),
            event_time=moment,
            quantity=pl.lit(1),
            value=pl.lit(None),
        )
        first = LAST - timedelta(days=youngest + MONTH - 1)
        replace_days(storage, rows, first, LAST - timedelta(days=youngest))


def encode_days(root: str, first: date = LAST - timedelta(days=DAYS - 1)) -> int:
    storage = Storage(root)
    return read_encoded_events(storage, first, LAST, version=current_version(storage)).height


def from_encoded_days(root: str, folder: str) -> dict[str, float]:
    """The way of the task `build_matrix`."""
    storage, began = Storage(root), time.perf_counter()
    events = read_encoded_events(
        storage, first_window_day(LAST, CONFIDENCE), LAST, version=current_version(storage)
    )
    read = time.perf_counter()
    built = build_interactions(events, LAST, CONFIDENCE, EVALUATION)
    done = time.perf_counter()
    return _keep(Path(folder), built.users, built.items, built.train, built.full) | {
        "read": read - began,
        "build": done - read,
    }


def without_slow_bots(root: str) -> int:
    """The same, after the slow bots of the window are left out."""
    storage = Storage(root)
    events = read_encoded_events(
        storage, first_window_day(LAST, CONFIDENCE), LAST, version=current_version(storage)
    )
    slow_bots = find_slow_bots(events, SlowBotSettings())["user_id"].cast(events["user_id"].dtype)
    people = events.filter(~events["user_id"].is_in(slow_bots.implode()))
    return int(build_interactions(people, LAST, CONFIDENCE, EVALUATION).full.nnz)


def in_pandas(root: str, folder: str) -> dict[str, float]:
    """The obvious way: read the window, weight the rows, group them by user and item."""
    from deltalake import DeltaTable

    began = time.perf_counter()
    table = DeltaTable(f"{root}/{paths.HISTORY}")
    first = first_window_day(LAST, CONFIDENCE)
    events = table.to_pandas(
        columns=["day", "user_id", "item_id", "event_type"],
        filters=[("day", ">=", first), ("day", "<=", LAST)],
    )
    read = time.perf_counter()
    age = (pd.Timestamp(LAST) - pd.to_datetime(events["day"])).dt.days
    events["weight"] = events["event_type"].map(CONFIDENCE.weights).astype(float) * 0.5 ** (
        age / CONFIDENCE.half_life_days
    )
    users, items = (
        pd.Index(np.sort(events[name].unique().astype(object))) for name in ("user_id", "item_id")
    )
    matrices = []
    for rows in (events[age > 0], events):
        sums = rows.groupby(["user_id", "item_id"], sort=False)["weight"].sum().reset_index()
        values = (1 + CONFIDENCE.alpha * np.log1p(sums["weight"])).astype(np.float32)
        place = (users.get_indexer(sums["user_id"]), items.get_indexer(sums["item_id"]))
        matrices.append(sparse.csr_matrix((values, place), shape=(len(users), len(items))))
    done = time.perf_counter()
    return _keep(Path(folder), pl.Series(users), pl.Series(items), *matrices) | {
        "read": read - began,
        "build": done - read,
    }


def _keep(
    folder: Path,
    users: pl.Series,
    items: pl.Series,
    train: sparse.csr_matrix,
    full: sparse.csr_matrix,
) -> dict[str, float]:
    pl.DataFrame({"id": users}).write_parquet(folder / "users.parquet")
    pl.DataFrame({"id": items}).write_parquet(folder / "items.parquet")
    for name, made in (("train", train), ("full", full)):
        made.sort_indices()
        sparse.save_npz(folder / f"{name}.npz", made, compressed=False)
    return {"users": full.shape[0], "items": full.shape[1], "cells": full.nnz}


def same(one: Path, other: Path) -> None:
    for name in ("users", "items"):
        assert pl.read_parquet(one / f"{name}.parquet").equals(
            pl.read_parquet(other / f"{name}.parquet")
        ), name
    for name in ("train", "full"):
        a, b = (sparse.load_npz(folder / f"{name}.npz") for folder in (one, other))
        assert np.array_equal(a.indptr, b.indptr), name
        assert np.array_equal(a.indices, b.indices), name
        np.testing.assert_allclose(a.data, b.data, rtol=1e-6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, default="M")
    parser.add_argument("--folder", type=Path, help="where to keep the history for another time")


def run(options: argparse.Namespace, report: Report) -> None:
    name = "S" if options.quick else options.shape
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        root = f"file://{folder.resolve()}/{name}"
        if not (folder / name).exists():
            apart(fill, root, SHAPES[name])
        storage = Storage(root)
        for path in storage.list("encoded"):
            storage.delete(path)
        _, one = apart(encode_days, root, LAST)
        events, year = apart(encode_days, root)
        files = (folder / name / "encoded").rglob("*.parquet")
        size = sum(file.stat().st_size for file in files) / 2**20
        results: dict[str, tuple[dict[str, Any], Cost]] = {}
        for way in (from_encoded_days, in_pandas):
            (Path(temporary) / way.__name__).mkdir()
            results[way.__name__] = apart(way, root, str(Path(temporary) / way.__name__))
        same(Path(temporary) / "from_encoded_days", Path(temporary) / "in_pandas")
        _, task = apart(without_slow_bots, root)
    figures, cost = results["from_encoded_days"]
    table = report.table(
        "matrix",
        {
            "": "",
            "read, s": ".1f",
            "build, s": ".1f",
            "both, s": ".1f",
            "×": ".1f",
            "peak MiB": ",.0f",
            "× memory": ".1f",
        },
        f"{events:,} events of {DAYS} days, {figures['users']:,} users, "
        f"{figures['items']:,} items, {figures['cells']:,} cells; the same matrices",
    )
    total = figures["read"] + figures["build"]
    for label, (figures_of_way, spent) in zip(
        ("from the encoded days", "pandas groupby"), results.values(), strict=True
    ):
        seconds = figures_of_way["read"] + figures_of_way["build"]
        table.add(
            label,
            figures_of_way["read"],
            figures_of_way["build"],
            seconds,
            seconds / total,
            spent.peak_mib,
            spent.peak_mib / cost.peak_mib,
        )
    table.add("without the slow bots", None, None, task.seconds, None, task.peak_mib, None)
    table = report.table(
        "encoding",
        {
            "events": ",",
            "a day, ms": ".0f",
            "all days, s": ".1f",
            "peak MiB": ",.0f",
            "MiB": ",.0f",
        },
        "encoding the days; the last column is the size of the encoded days",
    )
    table.add(events, one.seconds * 1000, year.seconds, year.peak_mib, size)
