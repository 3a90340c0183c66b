"""What a run uses is in the manifest and in the result."""

import pytest
from support.jobs import DAY, MakeJob, history, result, spec_url

from recsys_ops.models.spec import read_spec
from recsys_ops.models.version import load_manifest
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker import job
from recsys_ops.worker.job import main


def test_the_manifest_says_what_the_run_took(storage: Storage, make_job: MakeJob):
    spec = make_job(history(100, 40), iterations=2)
    assert main(spec_url(storage)) == 0
    manifest = load_manifest(storage, spec.version)
    run = manifest.run
    assert run.device == result(storage)["device"]
    of_a_gpu = {"driver", "cuda", "cupy"} if run.device["kind"] == "gpu" else set()
    assert run.device.keys() == {"kind", "name", "solver"} | of_a_gpu
    assert all(run.device.values())
    assert run.seconds.keys() == {"read", "fit", "loss", "evaluate", "refit", "recommend", "write"}
    assert all(seconds >= 0 for seconds in run.seconds.values())
    inputs = [
        storage.get(path)
        for path in storage.list("jobs")
        if path.endswith((".npz", ".parquet", "/spec.json"))
    ]
    assert run.bytes_read == sum(map(len, inputs))
    assert run.bytes_written == sum(file.bytes for file in manifest.files.values())
    assert run.peak_memory_bytes > 10_000_000
    assert (run.gpu_peak_memory_bytes is None) == (run.device["kind"] == "cpu")
    assert (run.resumed, run.cost) == (None, None)


def test_a_price_gives_a_cost_and_the_same_version(storage: Storage, make_job: MakeJob):
    free = make_job(history(100, 40), iterations=2)
    spec = make_job(history(100, 40), price=3600.0, iterations=2)
    assert spec.version == free.version
    assert read_spec(storage, DAY).price_per_hour == 3600
    assert main(spec_url(storage)) == 0
    run, cost = load_manifest(storage, spec.version).run, result(storage)["cost"]
    assert run.cost is not None
    assert 0.9 * sum(run.seconds.values()) < run.cost <= cost < run.cost + 10  # a second costs 1


def test_a_failed_run_costs_as_well(storage: Storage, make_job: MakeJob):
    make_job(history(100, 40), price=3600.0, iterations=2)
    storage.put(paths.job(DAY, "train.npz"), b"half")
    assert main(spec_url(storage)) == 1
    assert result(storage)["cost"] > 0


def test_the_cost_counts_from_the_start_of_the_process():
    meter = job.Meter(started=job.time.monotonic() - 1800)
    assert meter.cost(None) is None
    assert meter.cost(3.0) == pytest.approx(1.5, abs=0.01)
