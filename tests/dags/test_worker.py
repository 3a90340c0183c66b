"""Training on another machine, as a user of the UI sees it."""

import os
import signal
import time
from collections.abc import Callable
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
import yaml


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def task(site: SimpleNamespace, run: str) -> Any:
    return site.airflow.call("GET", f"dags/recsys_retrain/dagRuns/{run}/taskInstances/train")


def log(site: SimpleNamespace, run: str, attempt: int) -> str:
    path = f"dags/recsys_retrain/dagRuns/{run}/taskInstances/train/logs/{attempt}"
    return str(site.airflow.call("GET", path, headers={"Accept": "application/json"}))


@pytest.fixture
def endless(site: SimpleNamespace) -> Any:
    """From here on trainings do not end by themselves."""
    file = site.include / "recsys.yaml"
    before = file.read_text()
    settings = yaml.safe_load(before)
    settings["training"] |= {"iterations": 10**7, "cold_every_days": 1}
    file.write_text(yaml.safe_dump(settings))
    yield
    file.write_text(before)


def test_the_workers_log_is_in_the_tasks_log(site: SimpleNamespace, live: str, yesterday: date) -> None:
    if site.machine is None:
        pytest.skip("a network namespace with an sshd needs root")
    run = next(run["dag_run_id"] for run in site.airflow.runs("recsys_retrain") if run["state"] == "success")
    text = log(site, run, 1)
    assert "phase=refit" in text
    assert "sweep 1 of" in text


def test_a_killed_task_is_retried_on_the_same_job_and_marking_it_failed_ends_the_job(
    site: SimpleNamespace, live: str, yesterday: date, endless: None
) -> None:
    if site.machine is None:
        pytest.skip("a network namespace with an sshd needs root")
    run = site.airflow.trigger("recsys_retrain", day=str(yesterday))
    worker = until(site.machine.workers)
    until(lambda: "sweep 3 of" in log(site, run, 1))
    os.kill(task(site, run)["pid"], signal.SIGKILL)
    until(lambda: task(site, run)["state"] == "up_for_retry")
    clear = {"dry_run": False, "task_ids": ["train"], "dag_run_id": run, "only_failed": False}
    site.airflow.call("POST", "dags/recsys_retrain/clearTaskInstances", json=clear)
    until(lambda: task(site, run)["try_number"] == 2 and "sweep 3 of" in log(site, run, 2))
    assert site.machine.workers() == worker

    body = {"new_state": "failed"}
    site.airflow.call("PATCH", f"dags/recsys_retrain/dagRuns/{run}/taskInstances/train", json=body)
    until(lambda: site.machine.workers() == [], 30)
    assert task(site, run)["state"] == "failed"
    until(lambda: site.airflow.call("GET", f"dags/recsys_retrain/dagRuns/{run}")["state"] == "failed")
