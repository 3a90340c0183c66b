"""A whole day, from the events of a year to the lists of all users, against the usual pipeline.

The usual pipeline is pandas and `implicit`. Each way runs in a process of its own. Then the
worker's command on the same history, with the seconds of its phases.
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from deltalake import DeltaTable
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import shapes
from benchmarks.als.rivals import N, by_implicit, recommend, settings
from benchmarks.harness import Cost, Report, apart, timed
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.top_n import top_n
from recsys_ops.evaluation.metrics import ndcg_by_user
from recsys_ops.history.encoded import read_encoded_events
from recsys_ops.history.table import current_version, replace_days
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.models import spec as job_spec
from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    ListsSettings,
    TrainingSettings,
)
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

DAY = datetime(2026, 6, 30, tzinfo=UTC)
STAGES = ("matrix", "fit", "lists")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=shapes.SHAPES, default="M")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument(
        "--folder", type=Path, default=shapes.CACHE, help="where the shapes are kept"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Raises AssertionError when the matrices of the two pipelines differ."""
    if options.quick:
        options.shape, options.iterations = "S", 5
    name, folder, factors = options.shape, options.folder, options.factors
    with tempfile.TemporaryDirectory(prefix="recsys-benchmark-") as made:
        root, before = f"file://{made}/store", Path(made, "yesterday.npz")
        rows, _ = apart(fill, name, root)
        apart(fit_yesterday, name, folder, factors, options.iterations, before)
        cold = (root, name, folder, factors, options.iterations)
        ways: dict[str, dict[str, float]] = {
            "pandas and `implicit`": apart(usual_day, *cold)[0],
            "recsys_ops, cold": apart(our_day, *cold, None)[0],
            "recsys_ops, warm": apart(
                our_day, *cold[:4], TrainingSettings().warm_iterations, before
            )[0],
        }
        train_task(root, factors, options.iterations, report)
    usual = next(iter(ways.values()))
    table = report.table(
        "day",
        {
            f"a day of {name}, {rows:,} events": "",
            **dict.fromkeys(STAGES, ".1f"),
            "s": ".1f",
            "times as fast": ".1f",
            "CPU s": ".1f",
            f"NDCG@{N}": ".4f",
            "peak MiB": ",.0f",
        },
    )
    for way, figures in ways.items():
        assert figures["cells"] == usual["cells"], (
            f"{way}: {figures['cells']} cells, not {usual['cells']}"
        )
        assert np.isclose(figures["confidence"], usual["confidence"], rtol=1e-6), (
            f"{way}: another sum of confidences"
        )
        seconds = [figures[stage] for stage in STAGES]
        ratio = sum(usual[stage] for stage in STAGES) / sum(seconds)
        table.add(
            way,
            *seconds,
            sum(seconds),
            ratio,
            figures["cpu"],
            figures["ndcg"],
            figures["peak"],
        )


def fit_yesterday(name: str, folder: Path, factors: int, iterations: int, path: Path) -> None:
    """Fit the matrix without the pairs that met today, and write the factors to `path`."""
    data = shapes.load(name, folder)
    chosen = settings(factors, "auto", data.train)
    fitted = fit(data.yesterday(), chosen, iterations=iterations)
    np.savez(path, user=fitted.user, item=fitted.item)


def train_task(root: str, factors: int, iterations: int, report: Report) -> None:
    """The worker's command, cold, with evaluation, refit and the files of the model version."""
    (version, job), _ = apart(write_job, root, factors, iterations)
    # the worker skips a job whose version is finished
    Storage(root).delete(paths.model(version, "manifest.json"))
    command = [sys.executable, "-m", "recsys_ops.worker", f"{root}/{job}"]
    _, cost = timed(subprocess.run, command, check=True, capture_output=True)
    result = Storage(root).read_json(job.replace("spec", "result"))
    phases = result["seconds"]
    table = report.table(
        "train-task",
        {
            **dict.fromkeys(phases, ".1f"),
            "command, s": ".1f",
            "command / phases": ".2f",
            "peak MiB": ",.0f",
        },
    )
    total = sum(phases.values())
    peak = result["peak_memory_bytes"] / 2**20
    table.add(*phases.values(), cost.seconds, cost.seconds / total, peak)


def write_job(events: str, factors: int, iterations: int) -> tuple[str, str]:
    storage, day, confidence = Storage(events), DAY.date(), weighing()
    version = current_version(storage)
    rows = read_encoded_events(storage, first_window_day(day, confidence), day, version=version)
    built = build_interactions(rows, day, confidence, EvaluationSettings())
    training = settings(factors, "auto", built.train).model_copy(update={"iterations": iterations})
    draft = job_spec.JobDraft(
        day=day,
        confidence=confidence,
        training=training,
        evaluation=EvaluationSettings(),
        lists=ListsSettings(),
        history_version=version,
        window_start=first_window_day(day, confidence),
    )
    everything = np.ones(len(built.items), dtype=bool)
    inputs = job_spec.JobInputs(built, everything, ListInputs.empty(len(built.items)))
    spec = job_spec.write_job(storage, draft, inputs)
    return spec.version, paths.job(day, "spec.json")


def usual_day(
    events: str, name: str, folder: Path, factors: int, iterations: int
) -> dict[str, float]:
    (made, users, items), built = timed(usual_matrix, events)
    fit_factors, fitted = timed(by_implicit, factors, made, iterations)
    (listed, _), ranked = timed(recommend, fit_factors, made)
    return costs(built, fitted, ranked) | day_figures(made, users, items, listed, name, folder)


def our_day(
    events: str, name: str, folder: Path, factors: int, iterations: int, before: Path | None
) -> dict[str, float]:
    (made, users, items), built = timed(our_matrix, events)
    start = None
    if before:
        with np.load(before) as stored:
            start = Factors(stored["user"][users], stored["item"][items])
    fit_factors, fitted = timed(
        fit, made, settings(factors, "auto", made), iterations=iterations, factors0=start
    )
    (listed, _), ranked = timed(top_n, fit_factors.user, fit_factors.item, N, seen=made)
    return costs(built, fitted, ranked) | day_figures(made, users, items, listed, name, folder)


def usual_matrix(events: str) -> tuple[sparse.csr_matrix, NDArray[np.int64], NDArray[np.int64]]:
    """Confidences, and the numbers that the generator gave to the users and the items."""
    table = DeltaTable(f"{events}/{paths.HISTORY}")
    rows = table.to_pandas(columns=["user_id", "item_id", "event_type", "event_time"])
    age = (pd.Timestamp(DAY) - rows["event_time"]).dt.days
    rows["weight"] = rows["event_type"].map(
        dict(zip(shapes.TYPES, shapes.WEIGHTS, strict=True))
    ) * 0.5 ** (age / shapes.HALF_LIFE)
    summed = rows.groupby(["user_id", "item_id"], as_index=False)["weight"].sum()
    user, item = summed["user_id"].astype("category").cat, summed["item_id"].astype("category").cat
    confidence = (1 + shapes.ALPHA * np.log1p(summed["weight"].to_numpy())).astype(np.float32)
    made = sparse.csr_matrix(
        (confidence, (user.codes, item.codes)),
        shape=(len(user.categories), len(item.categories)),
        dtype=np.float32,
    )
    return made, numbers(pl.Series(user.categories)), numbers(pl.Series(item.categories))


def our_matrix(events: str) -> tuple[sparse.csr_matrix, NDArray[np.int64], NDArray[np.int64]]:
    """As `usual_matrix`."""
    confidence = weighing()
    storage = Storage(events)
    first = first_window_day(DAY.date(), confidence)
    rows = read_encoded_events(storage, first, DAY.date(), version=current_version(storage))
    built = build_interactions(rows, DAY.date(), confidence, EvaluationSettings())
    return built.full, numbers(built.users), numbers(built.items)


def weighing() -> ConfidenceSettings:
    return ConfidenceSettings(
        window_days=shapes.DAYS,
        weights=dict(zip(shapes.TYPES, shapes.WEIGHTS, strict=True)),
        half_life_days=shapes.HALF_LIFE,
        alpha=shapes.ALPHA,
    )


def fill(name: str, events: str) -> int:
    """Write what is not held out as a history; returns the number of rows.

    All its days but the last are encoded.
    """
    drawn = shapes.events(shapes.SHAPES[name])
    trained = ~drawn.held
    ids = {
        key: pl.Series([f"{key}{number:06}" for number in range(count)])
        for key, count in (("u", shapes.SHAPES[name].users), ("i", shapes.SHAPES[name].items))
    }
    moment = pl.lit(DAY) - pl.duration(days=pl.Series(drawn.age[trained]))
    rows = pl.select(
        recorded_at=moment,
        event_id=pl.int_range(np.count_nonzero(trained), eager=True).cast(pl.String),
        user_id=ids["u"].gather(drawn.user[trained]),
        item_id=ids["i"].gather(drawn.item[trained]),
        event_type=pl.Series(shapes.TYPES).gather(drawn.type[trained]),
        event_time=moment,
        quantity=pl.lit(1),
        value=pl.lit(None),
    )
    storage, last = Storage(events), DAY.date()
    first = last - timedelta(days=shapes.DAYS - 1)
    version = replace_days(storage, rows, first, last)
    read_encoded_events(storage, first, last - timedelta(days=1), version=version)
    return rows.height


def costs(*stages: Cost) -> dict[str, float]:
    """Seconds of the stages, CPU seconds of all of them, and the peak memory in MiB."""
    seconds = {stage: cost.seconds for stage, cost in zip(STAGES, stages, strict=True)}
    cpu = sum(cost.cpu_seconds for cost in stages)
    return seconds | {"cpu": cpu, "peak": stages[-1].peak_mib}


def day_figures(
    made: sparse.csr_matrix,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    listed: NDArray[np.int32],
    name: str,
    folder: Path,
) -> dict[str, float]:
    holdout = shapes.load(name, folder).holdout[users][:, items]
    evaluated = np.flatnonzero(np.diff(holdout.indptr))
    score = ndcg_by_user(listed[evaluated], holdout[evaluated], N).mean()
    return {
        "ndcg": float(score),
        "cells": made.nnz,
        "confidence": float(made.data.sum(dtype=np.float64)),
    }


def numbers(ids: pl.Series) -> NDArray[np.int64]:
    return ids.cast(pl.String).str.slice(1).cast(pl.Int64).to_numpy()
