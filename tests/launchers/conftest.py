"""Another machine, and the task `train`, run in this process or in one that can be killed."""

import logging
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from google.oauth2.service_account import Credentials
from support.jobs import DAY
from support.ssh_machine import Machine, machine
from support.train_task import Task, Train

from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import load_settings
from recsys_ops.storage.objects import Storage


@pytest.fixture(autouse=True)
def _nobody_asks_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every token, google-auth would ask Google where the account may be used."""
    monkeypatch.setattr(
        Credentials, "_is_regional_access_boundary_lookup_required", lambda _: False, raising=False
    )


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """The storage of the settings: a folder."""
    store = Storage(f"file://{tmp_path}/blob")
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", store.root)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    load_settings.cache_clear()
    yield store
    load_settings.cache_clear()


@pytest.fixture
def remote(
    tmp_path_factory: pytest.TempPathFactory, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """The machine on which `train` runs its job."""
    try:
        with machine(tmp_path_factory.mktemp("machine")) as new_machine:
            monkeypatch.setenv("RECSYS_WORKER__LAUNCHER", "ssh")
            monkeypatch.setenv("RECSYS_WORKER__SSH__PYTHON", new_machine.python)
            monkeypatch.setenv("RECSYS_WORKER__SSH__LOST_AFTER_S", "4")
            monkeypatch.setenv("AIRFLOW_CONN_RECSYS_WORKER", new_machine.connection())
            yield new_machine
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture
def train(storage: Storage, caplog: pytest.LogCaptureFixture) -> Train:
    """A function that runs the task in this process and returns its figures."""
    caplog.set_level(logging.INFO)

    def run(day: date = DAY) -> dict[str, Any]:
        load_settings.cache_clear()
        return TrainOnWorkerOperator(task_id="train").run(day, load_settings(), {})

    return run


@pytest.fixture
def start_task(tmp_path: Path) -> Iterator[Callable[[], "Task"]]:
    """A function that runs the task in its own process."""
    tasks: list[Task] = []

    def start() -> Task:
        tasks.append(Task(tmp_path / f"task-{len(tasks)}.log"))
        return tasks[-1]

    yield start
    for task in tasks:
        task.process.kill()
        task.process.join()
