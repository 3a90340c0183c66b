"""A whole day, from the year's events to everybody's list: ours and the usual pipeline, each in a process of its own."""

import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import shapes
from deltalake import DeltaTable
from measure import apart
from numpy.typing import NDArray
from rivals import N, Say, Took, by_implicit, recommend, settings, timed
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit
from recsys_ops.als.top_n import top_n
from recsys_ops.evaluation.metrics import ndcg_by_user
from recsys_ops.history.encoded import read_encoded_events
from recsys_ops.history.table import current_version, replace_days
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.interactions.window import first_window_day
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


def whole_day(
    name: str, folder: Path, factors: int, iterations: int, yesterday: Factors, say: Say
) -> None:
    """Events to lists, each way in a process of its own. Raises AssertionError when the matrices differ."""
    with tempfile.TemporaryDirectory(prefix="recsys-benchmark-") as made:
        events, before = f"file://{made}/store", Path(made, "yesterday.npz")
        rows, _ = apart("whole_day", "fill", name, events)
        np.savez(before, user=yesterday.user, item=yesterday.item)
        sweeps = TrainingSettings().warm_iterations
        ways: dict[str, dict[str, float]] = {
            "pandas and `implicit`": apart(
                "whole_day", "usual_day", events, name, folder, factors, iterations
            )[0],
            "recsys_ops, cold": apart(
                "whole_day", "our_day", events, name, folder, factors, iterations, None
            )[0],
            "recsys_ops, warm": apart(
                "whole_day", "our_day", events, name, folder, factors, sweeps, before
            )[0],
        }
        say_train_task(events, factors, iterations, say)
    usual = next(iter(ways.values()))
    say(
        f"\n| a day, {rows:,} events | matrix | fit | lists | s | × as fast | CPU s | NDCG@{N} | peak MiB |\n|---|{'--:|' * 8}"
    )
    for way, found in ways.items():
        assert found["cells"] == usual["cells"], (
            f"{way}: {found['cells']} cells, not {usual['cells']}"
        )
        assert np.isclose(found["confidence"], usual["confidence"], rtol=1e-6), (
            f"{way}: another sum of confidences"
        )
        ours, theirs = ([of[stage] for stage in STAGES] for of in (found, usual))
        say(
            f"| {way} | {' | '.join(f'{s:.1f}' for s in ours)} | {sum(ours):.1f} | {sum(theirs) / sum(ours):.1f} "
            f"| {found['cpu']:.1f} | {found['ndcg']:.4f} | {found['peak']:,.0f} |"
        )


def say_train_task(events: str, factors: int, iterations: int, say: Say) -> None:
    """The worker's command on the same history, cold, with evaluation, refit and the model's files: its phases, and all."""
    (version, job), _ = apart("whole_day", "write_job", events, factors, iterations)
    Storage(events).delete(
        paths.model(version, "manifest.json")
    )  # a finished job is not done again
    command = [sys.executable, "-m", "recsys_ops.worker", f"{events}/{job}"]
    _, took = timed(subprocess.run, command, check=True, capture_output=True)
    found = Storage(events).read_json(job.replace("spec", "result"))
    parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in found["seconds"].items())
    whole, peak = sum(found["seconds"].values()), found["peak_memory_bytes"] / 2**20
    say(
        f"\nThe train task: {took.wall:.1f} s, {took.wall / whole:.2f} × its phases ({parts}); at most {peak:,.0f} MiB."
    )


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
    found, fitted = timed(by_implicit, factors, made, iterations)
    (listed, _), ranked = timed(recommend, found, made)
    return costs(built, fitted, ranked) | day_figures(made, users, items, listed, name, folder)


def our_day(
    events: str, name: str, folder: Path, factors: int, iterations: int, before: Path | None
) -> dict[str, float]:
    (made, users, items), built = timed(our_matrix, events)
    start = None
    if before:
        with np.load(before) as stored:
            start = Factors(stored["user"][users], stored["item"][items])
    found, fitted = timed(
        fit, made, settings(factors, "auto", made), iterations=iterations, factors0=start
    )
    (listed, _), ranked = timed(top_n, found.user, found.item, N, seen=made)
    return costs(built, fitted, ranked) | day_figures(made, users, items, listed, name, folder)


def usual_matrix(events: str) -> tuple[sparse.csr_matrix, NDArray[np.int64], NDArray[np.int64]]:
    """Confidences, and the generator's numbers of the rows' users and the columns' items."""
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
    """What is not held out, as a history of which all days but the last are coded; returns the number of rows."""
    found = shapes.events(shapes.SHAPES[name])
    taught = ~found.held
    ids = {
        key: pl.Series([f"{key}{number:06}" for number in range(count)])
        for key, count in (("u", shapes.SHAPES[name].users), ("i", shapes.SHAPES[name].items))
    }
    at = pl.lit(DAY) - pl.duration(days=pl.Series(found.age[taught]))
    rows = pl.select(
        recorded_at=at,
        event_id=pl.int_range(np.count_nonzero(taught), eager=True).cast(pl.String),
        user_id=ids["u"].gather(found.user[taught]),
        item_id=ids["i"].gather(found.item[taught]),
        event_type=pl.Series(shapes.TYPES).gather(found.type[taught]),
        event_time=at,
        quantity=pl.lit(1),
        value=pl.lit(None),
    )
    storage, last = Storage(events), DAY.date()
    first = last - timedelta(days=shapes.DAYS - 1)
    version = replace_days(storage, rows, first, last)
    read_encoded_events(storage, first, last - timedelta(days=1), version=version)
    return rows.height


def costs(*stages: Took) -> dict[str, float]:
    """Seconds of the stages, CPU seconds of all, and the most memory this process has had, in MiB."""
    # getrusage would count the memory of the process that this one was started from, too
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10
    named = {stage: took.wall for stage, took in zip(STAGES, stages, strict=True)}
    return named | {"cpu": sum(took.cpu for took in stages), "peak": peak}


def day_figures(
    made: sparse.csr_matrix,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    listed: NDArray[np.int32],
    name: str,
    folder: Path,
) -> dict[str, float]:
    holdout = shapes.load(name, folder).holdout[users][:, items]
    judged = np.flatnonzero(np.diff(holdout.indptr))
    score = ndcg_by_user(listed[judged], holdout[judged], N).mean()
    return {
        "ndcg": float(score),
        "cells": made.nnz,
        "confidence": float(made.data.sum(dtype=np.float64)),
    }


def numbers(ids: pl.Series) -> NDArray[np.int64]:
    return ids.cast(pl.String).str.slice(1).cast(pl.Int64).to_numpy()
