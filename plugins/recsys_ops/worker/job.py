"""One training job: fit, lists for the evaluation, refit, lists to serve, model version; safe to kill and run again."""

import logging
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import polars as pl

from recsys_ops import paths
from recsys_ops.als import gpu, recommend
from recsys_ops.als.factors import Callback
from recsys_ops.als.fitting import describe_device, fit, loss, solver
from recsys_ops.errors import ModelError, RecsysError, StorageError
from recsys_ops.storage import Storage
from recsys_ops.worker import model
from recsys_ops.worker.lists import evaluation_lists, popular_items, popularity, recommendations
from recsys_ops.worker.matching import Matched, match, may_start_from, warm_start
from recsys_ops.worker.spec import RESULT, Inputs, JobSpec, read_inputs, read_spec

log = logging.getLogger(__name__)

POPULAR_ITEMS = 100


def main(url: str) -> int:
    """Run the job whose spec lies at ``<root>/jobs/day=<day>/spec.json`` and write ``result.json`` beside it.

    Returns 0 when the model version is complete, else 1; the result then says why in one sentence. Credentials of the
    storage come from the environment variables of object_store (``AZURE_STORAGE_ACCOUNT_NAME``, …).
    """
    place = re.fullmatch(r"(.+)/jobs/day=(\d{4}-\d\d-\d\d)/spec\.json", url)
    if place is None:
        log.error("%s is no job: expected <root>/jobs/day=<YYYY-MM-DD>/spec.json", url)
        return 1
    storage, day = Storage(place[1]), date.fromisoformat(place[2])
    seconds: dict[str, float] = {}
    version, device, reason, outage = None, None, None, False
    try:
        spec = read_spec(storage, day)
        version, device = spec.version, describe_device(spec.training)
        run(storage, spec, seconds)
    except RecsysError as error:
        reason, outage = str(error), isinstance(error, StorageError)
        log.error("the job of %s failed: %s", day, reason)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}; the worker's log has the traceback"
        log.exception("the job of %s failed", day)
    result = {
        "status": "failed" if reason else "succeeded",
        "version": version,
        "reason": reason,
        "outage": outage,
        "seconds": {name: round(spent, 3) for name, spent in seconds.items()},
        "peak_memory_bytes": _peak_memory(),
        "device": device,
    }
    try:
        storage.write_json(paths.job(day, RESULT), result)
    except RecsysError as error:
        log.error("the result could not be written: %s", error)
        return 1
    log.info("job day=%s %s version=%s seconds=%.1f", day, result["status"], version, sum(seconds.values()))
    return 1 if reason else 0


def run(storage: Storage, spec: JobSpec, seconds: dict[str, float]) -> None:
    """Train, make the lists and write the model version; `seconds` takes the time of each phase.

    Raises ModelError for inputs or a champion that must not be used.
    """
    with _phase("read", seconds):
        inputs = read_inputs(storage, spec)
        champion = _champion(storage, spec, inputs)
    data = inputs.interactions
    train, full = data.train, data.full
    log.info("users=%d items=%d train=%d full=%d holdout=%d", *train.shape, train.nnz, full.nnz, data.holdout.nnz)

    training, start = spec.training, None
    if champion is not None and may_start_from(champion.manifest, spec):
        start = warm_start(champion.matched, training)
    sweeps = training.iterations if start is None else training.warm_iterations
    computes = solver(training)
    best = gpu.top_n if computes == "gpu" else recommend.top_n
    log.info("solver=%s start=%s sweeps=%d", computes, "cold" if start is None else spec.champion, sweeps)
    with _phase("fit", seconds):
        fitted = fit(train, training, iterations=sweeps, factors0=start, callback=_progress(sweeps))
    with _phase("loss", seconds):
        log.info("loss=%.8g", loss(train, fitted, training))
    with _phase("evaluate", seconds):
        settings = spec.evaluation
        evaluation = evaluation_lists(
            train, data.holdout, fitted, champion.matched if champion else None, max(settings.k), settings.exclude_seen, best
        )
    log.info("evaluated users=%d champion=%s", len(evaluation.users), spec.champion)

    with _phase("refit", seconds):
        sweeps = training.refit_iterations
        served = fit(full, training, iterations=sweeps, factors0=fitted, callback=_progress(sweeps))
    with _phase("recommend", seconds):
        seen = full if spec.exclude_seen else None
        lists = recommendations(served, data.users, data.items, spec.top_n, seen=seen, eligible=inputs.eligible, top_n=best)
        popular = popular_items(full, data.items, POPULAR_ITEMS, eligible=inputs.eligible)
    log.info("recommended users=%d eligible_items=%d popular=%d", lists.height, inputs.eligible.sum(), popular.height)

    with _phase("write", seconds):
        frames = {
            "users": pl.DataFrame({"user_id": data.users}),
            "items": pl.DataFrame({"item_id": data.items, "eligible": inputs.eligible, "popularity": popularity(full)}),
            "recommendations": lists,
            "popular": popular,
        }
        model.write_model(
            storage, spec, served, evaluation, frames, started_from=champion.manifest if champion and start else None
        )


@dataclass(frozen=True)
class _Champion:
    manifest: model.Manifest
    matched: Matched


def _champion(storage: Storage, spec: JobSpec, inputs: Inputs) -> _Champion | None:
    if spec.champion is None:
        return None
    manifest = model.load_manifest(storage, spec.champion)
    if manifest.day >= spec.day:
        raise ModelError(
            f"champion {spec.champion} has learnt from {manifest.day}, so it cannot be judged on {spec.day}: "
            f"compare with a version of an earlier day"
        )
    users, items = model.read_frame(storage, manifest, "users"), model.read_frame(storage, manifest, "items")
    data, theirs = inputs.interactions, model.read_factors(storage, manifest)
    return _Champion(manifest, match(theirs, users["user_id"], items["item_id"], data.users, data.items))


def _progress(sweeps: int) -> Callback:
    """A line in the log after every sweep."""
    started = time.monotonic()
    return lambda sweep, _: log.info("sweep %d of %d, %.1f s", sweep + 1, sweeps, time.monotonic() - started)


@contextmanager
def _phase(name: str, seconds: dict[str, float]) -> Iterator[None]:
    log.info("phase=%s", name)
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = time.monotonic() - started
        log.info("phase=%s seconds=%.2f peak_memory_mib=%d", name, seconds[name], _peak_memory() >> 20)


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
