"""The cost of training on another machine than Airflow's.

Trains a shape's job by the worker command alone, then by the task `train`: beside it, on a machine
reached by SSH (a network namespace of this one with its own sshd, so both share the cores), and
there with the job staged to another folder. The overhead is the task's seconds minus the command's.
The times are the task's from the start of `execute`; Airflow is imported already, as in Airflow's
worker. Each in a process of its own, the faster of two. Every run starts without files and fits
cold. Their models have the same bytes, or the benchmark fails.

Then stages the job to Azurite, an emulator of Azure's storage, and fetches as many bytes, beside a
plain copy by Azure's own client.

Needs root, sshd and iproute2.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import shapes
from benchmarks.harness import Report, fastest
from recsys_ops.interactions.matrix import Interactions
from recsys_ops.launchers.staging import clear_staged, fetch_results, stage_job
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.models.spec import JobDraft, JobInputs, JobSpec, write_job
from recsys_ops.models.version import verify_version
from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    ListsSettings,
    TrainingSettings,
)
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.azurite.server import azurite  # noqa: E402
from support.ssh_machine import Machine, machine  # noqa: E402

DAY = date(2026, 3, 10)
TASK = """
import logging, sys, time
from datetime import date
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import load_settings
class FirstSweep(logging.Handler):
    def emit(self, record):
        if " sweep 1 of " in record.getMessage() and not self.seen:
            self.seen = time.monotonic() - began
    seen = None
first_sweep = FirstSweep()
logging.basicConfig(level=logging.INFO, handlers=[first_sweep], force=True)
settings = load_settings()
began = time.monotonic()
TrainOnWorkerOperator(task_id="train").run(date.fromisoformat(sys.argv[1]), settings, {})
print("\\nseconds", time.monotonic() - began, first_sweep.seen)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", nargs="+", default=["S", "M"], choices=shapes.SHAPES)


def run(options: argparse.Namespace, report: Report) -> None:
    names = ["S"] if options.quick else options.shapes
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            trainings(name, Path(folder) / name, report)
        copies(names[-1], Path(folder), report)


def trainings(name: str, folder: Path, report: Report) -> None:
    store = Storage(f"file://{folder}/blob")
    spec = write(store, name)
    checksums = set()
    shape = shapes.SHAPES[name]
    table = report.table(
        f"train-{name}",
        {
            f"{shape.users:,} users, {shape.items:,} items, {shape.cells:,} cells": "",
            "seconds": ".1f",
            "over the command alone": "+.1f",
            "to the end of the first sweep": ".1f",
        },
    )

    def measure(label: str, train: Callable[[], tuple[float, float | None]]) -> None:
        tries = []
        for _ in range(2):
            tries.append(train())
            manifest = verify_version(store, spec.version).model_dump(mode="json")
            checksums.add(json.dumps(manifest["files"], sort_keys=True))
            for path in store.list(paths.model(spec.version, "")):
                store.delete(path)
        seconds, first_sweep = min(tries)
        alone = table.rows[0][1] if table.rows else None
        table.add(label, seconds, None if alone is None else seconds - float(alone), first_sweep)

    for path in (folder / "machine", folder / "staged"):
        path.mkdir(parents=True)
    staging = {"RECSYS_WORKER__STAGING_URL": f"file://{folder}/staged"}
    with machine(folder / "machine") as remote:
        measure("the worker command alone", lambda: command(store))
        measure("`train`, `local`", lambda: task(store, remote, "local"))
        measure("`train`, `ssh`", lambda: task(store, remote, "ssh"))
        measure("`train`, `ssh`, staged", lambda: task(store, remote, "ssh", **staging))
    assert len(checksums) == 1, "the models differ"


def write(store: Storage, name: str) -> JobSpec:
    data = shapes.load(name)
    users, items = (
        pl.Series([f"{kind}{n}" for n in range(count)])
        for kind, count in zip("ui", data.train.shape, strict=True)
    )
    draft = JobDraft(
        day=DAY,
        confidence=ConfidenceSettings(),
        training=TrainingSettings(),
        evaluation=EvaluationSettings(),
        lists=ListsSettings(),
        history_version=1,
        window_start=DAY,
    )
    buyers = np.zeros(len(users), dtype=bool)
    inputs = JobInputs(
        Interactions(users, items, data.train, data.train, data.holdout, buyers),
        np.ones(len(items), dtype=bool),
        ListInputs.empty(len(items)),
    )
    return write_job(store, draft, inputs)


def command(store: Storage) -> tuple[float, float | None]:
    words = [sys.executable, "-m", "recsys_ops.worker", store.url(paths.job(DAY, "spec.json"))]
    began, first = time.monotonic(), None
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stderr is not None
        for line in process.stderr:
            if " sweep 1 of " in line and first is None:
                first = time.monotonic() - began
    assert process.returncode == 0
    return time.monotonic() - began, first


def task(store: Storage, remote: Machine, launcher: str, **env: str) -> tuple[float, float | None]:
    settings = {
        "AIRFLOW_HOME": str(remote.folder),
        "AIRFLOW_CONN_RECSYS_WORKER": remote.connection(),
        "RECSYS_STORAGE__ROOT": store.root,
        "RECSYS_WORKER__LAUNCHER": launcher,
        "RECSYS_WORKER__SSH__PYTHON": remote.python,
    }
    words = [sys.executable, "-c", TASK, str(DAY)]
    env = {**os.environ, **settings, **env}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    line = re.search(r"seconds ([\d.]+) ([\d.]+)", done.stdout)
    assert line, done.stdout + done.stderr
    return float(line[1]), float(line[2])


def copies(name: str, folder: Path, report: Report) -> None:
    store = Storage(f"file://{folder}/{name}/blob")
    spec = JobSpec.model_validate_json(store.get(paths.job(DAY, "spec.json")))
    inputs = [paths.job(DAY, file) for file in spec.inputs]
    size = sum(len(store.get(path)) for path in inputs) / 1e6
    table = report.table(
        "staging",
        {"": "", "MB/s": ".0f", "plain copy, MB/s": ".0f", "ratio": ".2f"},
        f"Staging the job of {name}, {size:.0f} MB in {len(inputs)} objects, the best of three",
    )

    def compare(label: str, own: Callable[[], None], plain: Callable[[], None]) -> None:
        rates = [size / fastest(call, 3) for call in (own, plain)]
        table.add(label, *rates, rates[0] / rates[1])

    with azurite(Path(tempfile.mkdtemp(dir=folder))) as server:
        container = server.container()
        work = Storage(f"{container}/staged", server.options)

        def stage() -> None:
            clear_staged(work)
            stage_job(store, work, spec)

        with azure_client(server, container) as client:

            def upload() -> None:
                for path in inputs:
                    with (folder / name / "blob" / path).open("rb") as data:
                        client.upload_blob(f"plain/{path}", data, overwrite=True, max_concurrency=4)

            def download() -> None:
                for path in inputs:
                    with (folder / "back").open("wb") as file:
                        client.download_blob(f"plain/{path}", max_concurrency=4).readinto(file)

            compare("to Azure's storage; `upload_blob`", stage, upload)
            for path in inputs:  # instead of a model version
                work.put(paths.model(spec.version, Path(path).name), store.get(path))
            compare(
                "back from it; `download_blob`",
                lambda: fetch_results(work, Storage(f"file://{folder}/b"), spec),
                download,
            )


@contextlib.contextmanager
def azure_client(server, container: str) -> Iterator:  # type: ignore[no-untyped-def, type-arg]
    from azure.storage.blob import ContainerClient

    name = container.removeprefix("abfs://")
    with ContainerClient(server.endpoint, name, credential=server.key) as client:
        yield client
