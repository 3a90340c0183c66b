"""``python benchmarks/worker.py [--shapes S M] [--output FILE]``: what it costs to train elsewhere than where one is.

Trains a shape's job by the worker command alone, then by the task `train`: beside it, on a machine reached by SSH (a network
namespace of this one with an sshd of its own, so both share the cores), and there with the job staged to another folder. The
overhead is the task's seconds over the command's own. The times are the task's from the start of `execute` on, Airflow being
imported already, as in Airflow's worker; each in a process of its own, the better of two. Every run starts with nothing and fits
cold; their models are the same bytes, or the benchmark fails.

Then stages the job to Azure's storage, as Azurite speaks it, and brings as many bytes back, beside a plain copy by Azure's own
client.

Needs root, sshd and iproute2.
"""

import argparse
import contextlib
import io
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

import measure
import numpy as np
import polars as pl
import shapes

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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from azurite.server import azurite  # noqa: E402
from launch.machine import Machine, machine  # noqa: E402

DAY = date(2026, 3, 10)
TASK = """
import logging, sys, time
from datetime import date
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import load_settings
class Told(logging.Handler):
    def emit(self, record):
        if " sweep 1 of " in record.getMessage() and not self.seen:
            self.seen = time.monotonic() - began
    seen = None
told = Told()
logging.basicConfig(level=logging.INFO, handlers=[told], force=True)
settings = load_settings()
began = time.monotonic()
TrainOnWorkerOperator(task_id="train").run(date.fromisoformat(sys.argv[1]), settings, {})
print("\\nseconds", time.monotonic() - began, told.seen)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["S", "M"], choices=shapes.SHAPES)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said):
        print(f"{measure.machine()}. `benchmarks/worker.py`\n")
        for name in given.shapes:
            trainings(name, Path(folder) / name)
        copies(given.shapes[-1], Path(folder))
    print(said.getvalue())
    if given.output:
        given.output.write_text(said.getvalue())


def trainings(name: str, folder: Path) -> None:
    store = Storage(f"file://{folder}/blob")
    spec = write(store, name)
    seconds, first, sums = {}, {}, set()

    def run(label: str, train: Callable[[], tuple[float, float | None]]) -> None:
        tries = []
        for _ in range(2):
            tries.append(train())
            sums.add(
                json.dumps(
                    verify_version(store, spec.version).model_dump(mode="json")["files"],
                    sort_keys=True,
                )
            )
            for path in store.list(paths.model(spec.version, "")):
                store.delete(path)
        seconds[label], first[label] = min(tries)

    for path in (folder / "machine", folder / "staged"):
        path.mkdir(parents=True)
    with machine(folder / "machine") as there:
        run("the worker command alone", lambda: command(store))
        run("`train`, `local`", lambda: task(store, there, "local"))
        run("`train`, `ssh`", lambda: task(store, there, "ssh"))
        run(
            "`train`, `ssh`, staged",
            lambda: task(store, there, "ssh", RECSYS_WORKER__STAGING_URL=f"file://{folder}/staged"),
        )
    assert len(sums) == 1, "the models differ"
    shape = shapes.SHAPES[name]
    print(f"{name}: {shape.users:,} users, {shape.items:,} items, {shape.cells:,} cells\n")
    print("| | seconds | overhead | to the end of the first sweep |\n|---|--:|--:|--:|")
    alone = seconds["the worker command alone"]
    for label, taken in seconds.items():
        print(f"| {label} | {taken:.1f} | {taken - alone:+.1f} | {first[label]:.1f} |")
    print()


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


def task(store: Storage, there: Machine, worker: str, **env: str) -> tuple[float, float | None]:
    ours = {
        "AIRFLOW_HOME": str(there.folder),
        "AIRFLOW_CONN_RECSYS_WORKER": there.connection(),
        "RECSYS_STORAGE__ROOT": store.root,
        "RECSYS_WORKER__LAUNCHER": worker,
        "RECSYS_WORKER__SSH__PYTHON": there.python,
    }
    words = [sys.executable, "-c", TASK, str(DAY)]
    done = subprocess.run(
        words, env={**os.environ, **ours, **env}, capture_output=True, text=True, check=False
    )
    found = re.search(r"seconds ([\d.]+) ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1]), float(found[2])


def copies(name: str, folder: Path) -> None:
    store = Storage(f"file://{folder}/{name}/blob")
    spec = JobSpec.model_validate_json(store.get(paths.job(DAY, "spec.json")))
    inputs = [paths.job(DAY, file) for file in spec.inputs]
    size = sum(len(store.get(path)) for path in inputs) / 1e6
    print(f"Staging the job of {name}, {size:.0f} MB in {len(inputs)} objects, the best of three\n")
    print("| | MB/s | plain copy, MB/s | ratio |\n|---|--:|--:|--:|")

    def compare(label: str, ours: Callable[[], None], plain: Callable[[], None]) -> None:
        rates = [max(size / taken for taken in times(call)) for call in (ours, plain)]
        print(f"| {label} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.2f} |")

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
            for path in inputs:  # in place of a model
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


def times(call: Callable[[], None]) -> Iterator[float]:
    for _ in range(3):
        began = time.monotonic()
        call()
        yield time.monotonic() - began


if __name__ == "__main__":
    main()
