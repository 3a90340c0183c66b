"""One training job: fit, lists for the evaluation, refit, lists to serve, model version; safe to kill and run again."""

import logging
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import polars as pl
from scipy import sparse

from recsys_ops.als import gpu
from recsys_ops.als.device import cupy, gpu_peak_memory
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import describe_device, fit, loss, solver
from recsys_ops.als.top_n import top_n
from recsys_ops.als.warm_start import Matched, match, warm_start
from recsys_ops.errors import ModelError, RecsysError, StorageError
from recsys_ops.lists.build import (
    bought_together_items,
    evaluation_lists,
    popular_by_category,
    popular_items,
    popularity,
    recommendations,
    served_lists,
    similar_items,
)
from recsys_ops.lists.category_cap import TopN, category_cap
from recsys_ops.models.spec import (
    LOG,
    NDCG,
    RESULT,
    JobInputs,
    JobSpec,
    code_digest,
    read_inputs,
    read_spec,
)
from recsys_ops.models.version import (
    Manifest,
    RunUsage,
    is_finished,
    load_manifest,
    read_factors,
    read_frame,
    write_model,
)
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.worker import EXIT_NO_RESULT
from recsys_ops.worker.checkpoint import Checkpoints
from recsys_ops.worker.job_log import StoredLog
from recsys_ops.worker.usage import CountedStorage, Meter, machine_memory, peak_memory

log = logging.getLogger(__name__)

POPULAR_ITEMS = 100
# by model, then by name such as ndcg@20
Metrics = dict[str, dict[str, float]]


def main(url: str, started: float | None = None) -> int:
    """Run the job whose spec lies at ``<root>/jobs/day=<day>/spec.json``; ``result.json`` and ``worker.log`` come beside it.

    Returns 0 when the model version is complete, else 1, and the result says why in one sentence; EXIT_NO_RESULT when it could not
    be written. A job that is done already is not done again. Credentials of the storage come from the environment variables of
    object_store (``AZURE_STORAGE_ACCOUNT_NAME``, …).

    started : of the process, by `time.monotonic`; what the cost is counted from, now when None
    """
    place = re.fullmatch(r"(.+)/jobs/day=(\d{4}-\d\d-\d\d)/spec\.json", url)
    if place is None:
        log.error("%s is no job: expected <root>/jobs/day=<YYYY-MM-DD>/spec.json", url)
        return 1
    root, day = place[1], date.fromisoformat(place[2])
    with StoredLog(Storage(root), paths.job(day, LOG)):
        return _main(
            CountedStorage(root), day, Meter(time.monotonic() if started is None else started)
        )


def _main(storage: CountedStorage, day: date, meter: Meter) -> int:
    spec, device, metrics, reason, outage = None, None, None, None, False
    try:
        spec = read_spec(storage, day)
        device = describe_device(spec.training)
        metrics = run(storage, spec, device, meter)
    except RecsysError as error:
        reason, outage = str(error), isinstance(error, StorageError)
        log.error("the job of %s failed: %s", day, reason)
    except MemoryError as error:
        reason = _too_little_memory(
            f"{error}; {storage.bytes_read:,} bytes were read of {machine_memory():,}"
        )
        log.exception("the job of %s failed: %s", day, reason)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}; the worker's log has the traceback"
        log.exception("the job of %s failed", day)
    result = {
        "status": "failed" if reason else "succeeded",
        "version": spec and spec.version,
        "reason": reason,
        "outage": outage,
        "metrics": metrics,
        "seconds": meter.seconds,
        "peak_memory_bytes": peak_memory(),
        "device": device,
        "cost": meter.cost(spec.price_per_hour) if spec else None,
    }
    try:
        storage.write_json(paths.job(day, RESULT), result)
    except RecsysError as error:
        log.error("the result could not be written: %s", error)
        return EXIT_NO_RESULT
    log.info(
        "job day=%s %s version=%s seconds=%.1f",
        day,
        result["status"],
        result["version"],
        sum(meter.seconds.values()),
    )
    return 1 if reason else 0


def run(
    storage: CountedStorage, spec: JobSpec, device: Mapping[str, str], meter: Meter
) -> Metrics | None:
    """Train, make the lists and write the model version; returns its metrics on the held-out day, None if it was done already.

    Raises ModelError for inputs or a champion that must not be used, and when memory does not suffice.
    """
    checkpoints = Checkpoints(Storage(storage.root), spec, device)
    if is_finished(storage, spec):
        log.info("version %s is finished already: nothing to do", spec.version)
        checkpoints.delete()
        return None
    if code_digest() != spec.code:
        log.warning(
            "this machine's recsys_ops is not the one that wrote the job: install the same release here and where Airflow runs"
        )
    with meter.phase("read"):
        inputs = read_inputs(storage, spec)
        champion, reference = (
            _earlier(storage, version, spec, inputs) for version in (spec.champion, spec.reference)
        )
    needs = _memory_needs(inputs, spec)
    log.log(logging.WARNING if "would fit" in needs else logging.INFO, "memory: %s", needs)
    try:
        metrics = _train(storage, spec, inputs, champion, reference, device, checkpoints, meter)
    except MemoryError as error:
        raise ModelError(_too_little_memory(f"{error}; {needs}")) from error
    checkpoints.delete()
    return metrics


def _train(
    storage: CountedStorage,
    spec: JobSpec,
    inputs: JobInputs,
    champion: "_Earlier | None",
    reference: "_Earlier | None",
    device: Mapping[str, str],
    checkpoints: Checkpoints,
    meter: Meter,
) -> Metrics:
    data = inputs.interactions
    train, full = data.train, data.full
    log.info(
        "users=%d items=%d train=%d full=%d holdout=%d",
        *train.shape,
        train.nnz,
        full.nnz,
        data.holdout.nnz,
    )

    training, start = spec.training, None
    if champion is not None and may_start_from(champion.manifest, spec):
        start = warm_start(champion.matched, training)
    sweeps = training.iterations if start is None else training.warm_iterations
    computes = solver(training)
    best = (
        partial(gpu.top_n, max_memory_gib=training.max_gpu_memory_gib)
        if computes == "gpu"
        else top_n
    )
    log.info(
        "solver=%s start=%s sweeps=%d", computes, "cold" if start is None else spec.champion, sweeps
    )
    with meter.phase("fit"):
        fitted = _fit("fit", train, spec, sweeps, start, checkpoints)
    with meter.phase("loss"):
        log.info("loss=%.8g", loss(train, fitted, training))
    with meter.phase("evaluate"):
        settings = spec.evaluation
        evaluation = evaluation_lists(
            train,
            data.holdout,
            fitted,
            champion.matched if champion else None,
            max(settings.cutoffs),
            settings.exclude_seen,
            best,
            reference=reference.matched if reference else None,
            buyers=data.buyers,
        )
        metrics = {
            name: scores.metrics() for name, scores in evaluation.scores(settings.cutoffs).items()
        }
    decisive = f"ndcg@{settings.cutoffs[-1]}"
    told = " ".join(f"{name}={found[decisive]:.4f}" for name, found in metrics.items())
    log.info(
        "evaluated users=%d champion=%s %s %s", len(evaluation.users), spec.champion, decisive, told
    )

    if spec.purpose == "score":
        with meter.phase("write"):
            scores = {
                "users": evaluation.users,
                "ndcg": evaluation.scores(settings.cutoffs)["challenger"].ndcg[-1],
            }
            storage.put(paths.job(spec.day, NDCG), serialization.from_arrays(scores))
        return metrics

    with meter.phase("refit"):
        served = _fit("refit", full, spec, training.refit_iterations, fitted, checkpoints)
    with meter.phase("recommend"):
        again = served_lists(
            train,
            evaluation.users,
            fitted,
            served,
            max(settings.cutoffs),
            settings.exclude_seen,
            best,
        )
        lists = _lists(inputs, spec, served, best)
    log.info(
        "eligible_items=%d %s",
        inputs.eligible.sum(),
        " ".join(f"{name}={frame.height}" for name, frame in lists.items()),
    )

    def measured() -> RunUsage:
        return RunUsage(
            device=dict(device),
            seconds=meter.seconds,
            bytes_read=storage.bytes_read,
            bytes_written=storage.bytes_written,
            peak_memory_bytes=peak_memory(),
            gpu_peak_memory_bytes=gpu_peak_memory(cupy()) if computes == "gpu" else None,
            resumed=checkpoints.resumed or None,
            cost=meter.cost(spec.price_per_hour),
        )

    with meter.phase("write"):
        frames = {
            "users": pl.DataFrame({"user_id": data.users}),
            "items": pl.DataFrame(
                {"item_id": data.items, "eligible": inputs.eligible, "popularity": popularity(full)}
            ),
            **lists,
        }
        before, evaluation = (
            champion.manifest if champion and start else None,
            replace(evaluation, served=again),
        )
        write_model(
            storage, spec, served, evaluation, frames, started_from=before, measured=measured
        )
    return metrics


def _lists(
    inputs: JobInputs, spec: JobSpec, served: Factors, best: TopN
) -> dict[str, pl.DataFrame]:
    """The frames that are served, by name."""
    data, shop, settings, eligible = inputs.interactions, inputs.shop, spec.lists, inputs.eligible
    n, pinned = settings.top_n, shop.pinned.head(settings.top_n)
    most = settings.max_per_category
    return {
        "recommendations": recommendations(
            served,
            data.users,
            data.items,
            n,
            seen=data.full if settings.exclude_seen else None,
            eligible=eligible,
            pinned=pinned["item_id"],
            cap=category_cap(shop.category, pinned["category"], most) if most else None,
            top_n=best,
        ),
        "similar": similar_items(served.item, data.items, n, eligible=eligible, top_n=best),
        "bought_together": bought_together_items(
            shop.baskets, data.items, n, settings.bought_together, eligible=eligible
        ),
        "popular": popular_items(
            data.full, data.items, POPULAR_ITEMS, eligible=eligible, pinned=shop.pinned["item_id"]
        ),
        "categories": popular_by_category(
            data.full, data.items, shop.category, n, eligible=eligible
        ),
        "trending": shop.trending,
    }


def _fit(
    phase: str,
    user_items: sparse.csr_matrix,
    spec: JobSpec,
    sweeps: int,
    start: Factors | None,
    checkpoints: Checkpoints,
) -> Factors:
    """All of a phase's sweeps, but for those that are in its checkpoint; a line in the log after each."""
    done, start = checkpoints.read(phase) or (0, start)
    began = time.monotonic()

    def after(sweep: int, sofar: Callable[[], Factors]) -> None:
        log.info("sweep %d of %d, %.1f s", done + sweep + 1, sweeps, time.monotonic() - began)
        checkpoints.write(phase, done + sweep + 1, sofar, last=done + sweep + 1 == sweeps)

    return fit(user_items, spec.training, iterations=sweeps - done, factors0=start, callback=after)


@dataclass(frozen=True)
class _Earlier:
    manifest: Manifest
    matched: Matched


def _earlier(
    storage: Storage, version: str | None, spec: JobSpec, inputs: JobInputs
) -> _Earlier | None:
    """A version that was or is live, in this job's rows."""
    if version is None:
        return None
    manifest = load_manifest(storage, version)
    if manifest.day >= spec.day:
        raise ModelError(
            f"version {version} has learnt from {manifest.day}, so it cannot be judged on {spec.day}: "
            f"compare with a version of an earlier day"
        )
    users, items = read_frame(storage, manifest, "users"), read_frame(storage, manifest, "items")
    data, theirs = inputs.interactions, read_factors(storage, manifest)
    return _Earlier(
        manifest, match(theirs, users["user_id"], items["item_id"], data.users, data.items)
    )


def may_start_from(champion: Manifest, spec: JobSpec) -> bool:
    """Whether a few sweeps from the champion's factors will do: the equations are the same, and not too many days went so.

    After `cold_every_days` days a fit is cold again, so that nothing is carried on for ever.
    """
    same = all(
        getattr(champion.spec, name) == getattr(spec, name)
        for name in ("training", "confidence", "code")
    )
    return same and (spec.day - champion.fitted_cold).days < spec.training.cold_every_days


def _memory_needs(inputs: JobInputs, spec: JobSpec) -> str:
    """What the job needs, what is there and, where that is less, the most `training.factors` that would fit."""
    train, full = inputs.interactions.train, inputs.interactions.full
    cells, rows = train.nnz + 2 * full.nnz, sum(full.shape)

    def needed(factors: int) -> int:
        """Bytes, roughly: the libraries; the matrices, one of them transposed as well; four copies of the factors (of a fit:
        start, result, at work, on their way into a checkpoint); the served lists, of users and twice of items; the baskets.
        """
        listed = 70 * (full.shape[0] + 2 * full.shape[1]) * spec.lists.top_n
        return int(
            300 * 2**20
            + 8 * cells
            + 4 * 4 * rows * factors
            + listed
            + 80 * inputs.shop.baskets.items.nnz
        )

    factors, there = spec.training.factors, machine_memory()
    said = f"about {needed(factors):,} bytes for {factors} factors of {there:,}"
    if needed(factors) <= there:
        return said
    fitting = bisect_right(range(1, factors), there, key=needed)  # the largest number, 0 where none
    return f"{said}; " + (
        f"training.factors = {fitting} would fit" if fitting else "no number of factors would fit"
    )


def _too_little_memory(known: str) -> str:
    return (
        f"the machine's memory does not suffice ({known}): lower training.factors or confidence.window_days, "
        "or take a larger machine"
    )
