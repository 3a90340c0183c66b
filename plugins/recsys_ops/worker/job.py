"""One training job, from its spec to its result. It can be killed at any moment and run again."""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from recsys_ops.als.device import cupy, gpu_peak_memory
from recsys_ops.als.fit import describe_device
from recsys_ops.errors import ModelError, RecsysError, StorageError
from recsys_ops.evaluation.compare import Evaluation
from recsys_ops.models.code_version import code_digest
from recsys_ops.models.files import LOG, NDCG, RESULT
from recsys_ops.models.spec import JobSpec, read_inputs, read_spec
from recsys_ops.models.version import RunUsage, is_finished
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.worker import EXIT_NO_RESULT
from recsys_ops.worker.checkpoint import Checkpoints
from recsys_ops.worker.job_log import StoredLog
from recsys_ops.worker.memory import machine_memory, memory_advice, out_of_memory_message
from recsys_ops.worker.training_run import TrainingRun, read_earlier_model
from recsys_ops.worker.usage import CountedStorage, Meter, peak_memory

log = logging.getLogger(__name__)

# by model, then by name such as ndcg@20
ModelMetrics = dict[str, dict[str, float]]


@dataclass
class _Outcome:
    """What the result file says, beside what the meter has measured.

    reason : why the job failed, in one sentence; None if it succeeded
    outage : whether storage failed, so that another try may succeed
    """

    spec: JobSpec | None = None
    device: dict[str, str] | None = None
    metrics: ModelMetrics | None = None
    reason: str | None = None
    outage: bool = False


def main(url: str, started: float | None = None) -> int:
    """Run the job of a spec, and write ``result.json`` and ``worker.log`` beside the spec.

    A job that is finished already is not run again. Storage credentials come from the environment
    variables of object_store (``AZURE_STORAGE_ACCOUNT_NAME``, …).

    url : of the spec, ``<root>/jobs/day=<YYYY-MM-DD>/spec.json``
    started : when the process started, by `time.monotonic`; the cost counts from it; None: now

    Returns 0 if the model version is complete, EXIT_NO_RESULT if the result could not be written,
    else 1, and the result says in a sentence why.
    """
    match = re.fullmatch(r"(.+)/jobs/day=(\d{4}-\d\d-\d\d)/spec\.json", url)
    if match is None:
        log.error("%s is no job spec: expected <root>/jobs/day=<YYYY-MM-DD>/spec.json", url)
        return 1
    root, day = match[1], date.fromisoformat(match[2])
    meter = Meter(time.monotonic() if started is None else started)
    with StoredLog(Storage(root), paths.job(day, LOG)):
        storage = CountedStorage(root)
        outcome = _attempt(storage, day, meter)
        return _write_result(storage, day, meter, outcome)


def _attempt(storage: CountedStorage, day: date, meter: Meter) -> _Outcome:
    """Run the job and catch whatever it raises."""
    outcome = _Outcome()
    try:
        outcome.spec = read_spec(storage, day)
        outcome.device = describe_device(outcome.spec.training)
        outcome.metrics = _run(storage, outcome.spec, outcome.device, meter)
    except RecsysError as error:
        outcome.reason, outcome.outage = str(error), isinstance(error, StorageError)
        log.error("the job of %s failed: %s", day, outcome.reason)
    except MemoryError as error:
        outcome.reason = out_of_memory_message(
            f"{error}; {storage.bytes_read:,} bytes were read, the machine has {machine_memory():,}"
        )
        log.exception("the job of %s failed: %s", day, outcome.reason)
    except Exception as error:
        outcome.reason = f"{type(error).__name__}: {error}; the worker's log has the traceback"
        log.exception("the job of %s failed", day)
    return outcome


def _write_result(storage: Storage, day: date, meter: Meter, outcome: _Outcome) -> int:
    """Write the result file; returns the exit code of `main`."""
    spec = outcome.spec
    result: dict[str, Any] = {
        "status": "failed" if outcome.reason else "succeeded",
        "version": spec and spec.version,
        "reason": outcome.reason,
        "outage": outcome.outage,
        "metrics": outcome.metrics,
        "seconds": meter.seconds,
        "peak_memory_bytes": peak_memory(),
        "device": outcome.device,
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
    return 1 if outcome.reason else 0


def _run(
    storage: CountedStorage, spec: JobSpec, device: Mapping[str, str], meter: Meter
) -> ModelMetrics | None:
    """Train, make the lists and write the model version.

    Returns the metrics on the hold-out; None if the version was finished already.

    Raises ModelError if the inputs or the champion must not be used, and if memory runs out.
    """
    checkpoints = Checkpoints(Storage(storage.root), spec, device)
    if is_finished(storage, spec):
        log.info("version %s is finished already: nothing to do", spec.version)
        checkpoints.delete()
        return None
    if code_digest() != spec.code:
        log.warning(
            "this machine's recsys_ops is not the one that wrote the job: "
            "install the same release here and where Airflow runs"
        )
    with meter.phase("read"):
        inputs = read_inputs(storage, spec)
        champion, reference = (
            read_earlier_model(storage, version, spec, inputs)
            for version in (spec.champion, spec.reference)
        )
    fits, advice = memory_advice(inputs, spec)
    log.log(logging.INFO if fits else logging.WARNING, "memory: %s", advice)
    run = TrainingRun(spec, inputs, champion, reference, checkpoints)
    try:
        metrics = _train(run, storage, device, meter)
    except MemoryError as error:
        raise ModelError(out_of_memory_message(f"{error}; {advice}")) from error
    checkpoints.delete()
    return metrics


def _train(
    run: TrainingRun, storage: CountedStorage, device: Mapping[str, str], meter: Meter
) -> ModelMetrics:
    """Go through the phases of a run, each measured; returns the metrics on the hold-out."""
    spec, data = run.spec, run.inputs.interactions
    log.info(
        "users=%d items=%d train=%d full=%d holdout=%d",
        *data.train.shape,
        data.train.nnz,
        data.full.nnz,
        data.holdout.nnz,
    )
    with meter.phase("fit"):
        fitted = run.fit()
    with meter.phase("loss"):
        log.info("loss=%.8g", run.loss(fitted))
    with meter.phase("evaluate"):
        evaluation = run.evaluate(fitted)
        metrics = _metrics(spec, evaluation)
    if spec.purpose == "score":
        with meter.phase("write"):
            _write_ndcg(storage, spec, evaluation)
        return metrics
    with meter.phase("refit"):
        served = run.refit(fitted)
    with meter.phase("recommend"):
        evaluation = run.evaluate_refit(evaluation, fitted, served)
        frames = run.recommend(served)
    log.info(
        "eligible_items=%d %s",
        run.inputs.eligible.sum(),
        " ".join(f"{name}={frame.height}" for name, frame in frames.items()),
    )

    def measure() -> RunUsage:
        return RunUsage(
            device=dict(device),
            seconds=meter.seconds,
            bytes_read=storage.bytes_read,
            bytes_written=storage.bytes_written,
            peak_memory_bytes=peak_memory(),
            gpu_peak_memory_bytes=gpu_peak_memory(cupy()) if device["kind"] == "gpu" else None,
            resumed=run.checkpoints.resumed or None,
            cost=meter.cost(spec.price_per_hour),
        )

    with meter.phase("write"):
        run.write(storage, served, evaluation, frames, measure)
    return metrics


def _metrics(spec: JobSpec, evaluation: Evaluation) -> ModelMetrics:
    """The metrics of every model on the hold-out, with a line in the log."""
    cutoffs = spec.evaluation.cutoffs
    metrics = {name: scores.metrics() for name, scores in evaluation.scores(cutoffs).items()}
    ndcg = f"ndcg@{cutoffs[-1]}"
    log.info(
        "evaluated users=%d champion=%s %s %s",
        len(evaluation.users),
        spec.champion,
        ndcg,
        " ".join(f"{name}={values[ndcg]:.4f}" for name, values in metrics.items()),
    )
    return metrics


def _write_ndcg(storage: Storage, spec: JobSpec, evaluation: Evaluation) -> None:
    """Write each evaluated user's NDCG at the last cut-off, beside the spec."""
    ndcg = evaluation.scores(spec.evaluation.cutoffs)["challenger"].ndcg[-1]
    arrays = serialization.from_arrays({"users": evaluation.users, "ndcg": ndcg})
    storage.put(paths.job(spec.day, NDCG), arrays)
