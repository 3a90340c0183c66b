"""A machine may be preempted at any moment: the next try resumes and gives the same bytes."""

import re
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.jobs import (
    DAY,
    MakeJob,
    contents,
    delete_models,
    history,
    spec_url,
    start_worker,
    without_run,
)

from recsys_ops.als.factors import Factors, small_random
from recsys_ops.errors import StorageError
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import load_manifest, verify_version
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.checkpoint import Checkpoints
from recsys_ops.worker.job import main

FIT, REFIT = (paths.job(DAY, f"checkpoint-{phase}.npz") for phase in ("fit", "refit"))
CPU = {"kind": "cpu", "name": "x86_64", "solver": "cpu"}


def killed_at(process: subprocess.Popen[str], moment: Callable[[list[str]], object]) -> list[str]:
    """Kill the worker with SIGKILL when `moment` is true for its log; returns the log."""
    logged: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        logged.append(line.rstrip())
        if moment(logged):
            process.send_signal(signal.SIGKILL)
            break
    logged += [line.rstrip() for line in process.stderr]
    assert process.wait() == -signal.SIGKILL, logged
    return logged


def sweeps(log: list[str]) -> dict[str, list[int]]:
    """The numbers of the sweeps of each phase."""
    found: dict[str, list[int]] = {"fit": [], "refit": []}
    phase = ""
    for line in log:
        if begun := re.search(r" phase=(\w+)$", line):
            phase = begun[1]
        if sweep := re.search(r" sweep (\d+) of ", line):
            found[phase].append(int(sweep[1]))
    return found


def stored(log: list[str], phase: str) -> int:
    """The last sweep with a checkpoint, according to the log."""
    numbers = [
        int(match[1])
        for line in log
        if (match := re.search(rf"checkpoint phase={phase} sweep=(\d+) ", line))
    ]
    return max(numbers, default=0)


def sweeps_in(storage: Storage, phase: str) -> int:
    path = paths.job(DAY, f"checkpoint-{phase}.npz")
    return int(serialization.to_arrays(storage.get(path))["sweeps"]) if storage.exists(path) else 0


def test_a_job_killed_three_times_resumes_and_gives_the_same_bytes(
    storage: Storage, make_job: MakeJob
):
    spec = make_job(history(150, 40), factors=8, iterations=150, refit_iterations=150)
    assert main(spec_url(storage)) == 0
    undisturbed = contents(storage, spec.version)
    delete_models(storage)

    sweeps_done = {"fit": 0, "refit": 0}
    for phase, sweep in (("fit", 2), ("fit", 60), ("refit", 40)):

        def moment(log: list[str], phase: str = phase, sweep: int = sweep) -> bool:
            return stored(log, phase) > 0 and max(sweeps(log)[phase]) >= sweep

        log = killed_at(start_worker(storage), moment)
        for name, numbers in sweeps(log).items():
            begun = sweeps_done[name] + 1
            assert numbers == list(range(begun, begun + len(numbers)))
            sweeps_done[name] = sweeps_in(storage, name)
            assert sweeps_done[name] >= stored(log, name)
        assert 0 < sweeps_done[phase] < 150
    assert sweeps_done["fit"] == 150

    last = start_worker(storage)
    log = last.communicate()[1].splitlines()
    assert last.returncode == 0, log
    assert sweeps(log) == {"fit": [], "refit": list(range(sweeps_done["refit"] + 1, 151))}
    assert without_run(contents(storage, spec.version)) == without_run(undisturbed)
    assert verify_version(storage, spec.version).run.resumed == sweeps_done
    assert not [path for path in storage.list("jobs") if "checkpoint" in path]


@pytest.mark.parametrize(("kind", "written"), [("gpu", [1, 2, 3, 4, 5]), ("cpu", [1, 5])])
def test_a_gpu_gets_a_checkpoint_each_sweep_and_a_cpu_only_some(
    storage: Storage,
    make_job: MakeJob,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    written: list[int],
):
    caplog.set_level("INFO")
    checkpoints = Checkpoints(storage, make_job(iterations=5), {"kind": kind})
    factors = small_random((4000, 3000), 32, seed=1)
    for sweep in range(1, 6):
        checkpoints.write("fit", sweep, lambda: factors, last=sweep == 5)
        wait([checkpoints._writing])
    assert [int(n) for n in re.findall(r"checkpoint phase=fit sweep=(\d+)", caplog.text)] == written


@pytest.fixture
def left_over(storage: Storage, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    """A job that was killed between its last sweep and its manifest."""
    spec = make_job(history(100, 40), factors=8, iterations=3, refit_iterations=2)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "delete", lambda self: self._thread.shutdown())
        assert main(spec_url(storage)) == 0
    assert (sweeps_in(storage, "fit"), sweeps_in(storage, "refit")) == (3, 2)
    storage.delete(paths.model(spec.version, "manifest.json"))
    return spec


def test_a_job_killed_before_its_manifest_repeats_no_sweep(
    storage: Storage, left_over: JobSpec, caplog: pytest.LogCaptureFixture
):
    before = contents(storage, left_over.version)
    caplog.set_level("INFO")
    assert main(spec_url(storage)) == 0
    assert "sweep 1 of" not in caplog.text
    assert verify_version(storage, left_over.version).run.resumed == {"fit": 3, "refit": 2}
    assert before.items() <= contents(storage, left_over.version).items()
    assert (sweeps_in(storage, "fit"), sweeps_in(storage, "refit")) == (0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:500] + b"?" + data[501:],
    ],
    ids=["empty", "half", "cut", "flipped"],
)
def test_a_damaged_checkpoint_is_not_used(
    damage: Callable[[bytes], bytes],
    storage: Storage,
    left_over: JobSpec,
    caplog: pytest.LogCaptureFixture,
):
    before = contents(storage, left_over.version)
    storage.put(FIT, damage(storage.get(FIT)))
    caplog.set_level("INFO")
    assert main(spec_url(storage)) == 0
    assert f"{FIT} cannot be used" in caplog.text
    assert "sweep 1 of 3" in caplog.text
    manifest = verify_version(storage, left_over.version)
    assert manifest.run.resumed == {"refit": 2}
    assert before.items() <= contents(storage, left_over.version).items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("code_digest", lambda: "0" * 64),
        ("package_versions", lambda: {"numpy": "3.0"}),
        ("describe_device", lambda _: CPU | {"name": "another"}),
    ],
    ids=["code", "packages", "device"],
)
def test_a_checkpoint_of_another_release_or_device_is_not_used(
    name: str,
    value: Any,
    storage: Storage,
    left_over: JobSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(
        f"recsys_ops.worker.{'job' if name == 'describe_device' else 'checkpoint'}.{name}", value
    )
    caplog.set_level("INFO")
    assert main(spec_url(storage)) == 0
    for path in (FIT, REFIT):
        assert f"{path} is of another job, release or device: not used" in caplog.text
    assert {"sweep 1 of 3", "sweep 1 of 2"} <= {
        record.getMessage().partition(",")[0] for record in caplog.records
    }
    assert load_manifest(storage, left_over.version).run.resumed is None


def test_a_checkpoint_of_another_job_or_phase_is_not_used(storage: Storage, left_over: JobSpec):
    read = Checkpoints(storage, left_over, CPU).read
    storage.put(REFIT, storage.get(FIT))
    assert read("refit") is None
    other = left_over.model_copy(update={"version": "20260310-0000000000"})
    assert Checkpoints(storage, other, CPU).read("fit") is None


def test_a_slow_storage_gets_fewer_checkpoints_but_always_the_last(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
):
    storage, free, begun = Storage(tmp_path.as_uri()), threading.Event(), threading.Event()
    checkpoints = Checkpoints(storage, make_job(iterations=1), CPU)

    def slow(self: Storage, path: str, data: Path, put: Any = Storage.put) -> None:
        begun.set()
        assert free.wait(10)
        put(self, path, data)

    monkeypatch.setattr(Storage, "put", slow)
    copies = []

    def sofar() -> Factors:
        copies.append(len(copies))
        return Factors(np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32))

    checkpoints.write("fit", 1, sofar, last=False)
    assert begun.wait(10)
    for sweep in range(2, 9):
        checkpoints.write("fit", sweep, sofar, last=False)
    assert len(copies) == 1
    threading.Timer(0.1, free.set).start()
    checkpoints.write("fit", 9, sofar, last=True)
    checkpoints._thread.shutdown()
    assert len(copies) == 2
    assert sweeps_in(storage, "fit") == 9


def test_a_storage_that_refuses_checkpoints_does_not_end_the_job(
    storage: Storage,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    def refuse(self: Storage, path: str, data: bytes, put: Any = Storage.put) -> None:
        if "checkpoint" in path:
            raise StorageError(f"cannot write {path}: the quota is used up")
        put(self, path, data)

    spec = make_job(iterations=1)
    monkeypatch.setattr(Storage, "put", refuse)
    assert main(spec_url(storage)) == 0
    assert "no checkpoint after sweep 1 of phase fit: cannot write" in caplog.text
    verify_version(storage, spec.version)


def test_factors_come_back_as_they_were(storage: Storage, make_job: MakeJob):
    spec = make_job(iterations=1)
    kept = Factors(
        np.arange(6, dtype=np.float32).reshape(2, 3), np.full((1, 3), np.nan, np.float32)
    )
    checkpoints = Checkpoints(storage, spec, CPU)
    checkpoints.write("fit", 7, lambda: kept, last=True)
    checkpoints._thread.shutdown()
    sweeps, factors = Checkpoints(storage, spec, CPU).read("fit") or (0, kept)
    assert sweeps == 7
    assert (factors.user.tobytes(), factors.item.tobytes()) == (
        kept.user.tobytes(),
        kept.item.tobytes(),
    )
