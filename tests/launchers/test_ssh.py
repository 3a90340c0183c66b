"""Training by SSH, when the connection, the machine or the task fails."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.compute_server import INSTANCE, PROJECT, ZONE, compute_server
from support.google_identity import connection
from support.jobs import DAY
from support.ssh_machine import Machine
from support.train_task import Task, Train

from recsys_ops.errors import ModelError, SettingsError, WorkerError
from recsys_ops.launchers.base import Job
from recsys_ops.launchers.ssh import Ssh
from recsys_ops.models.version import verify_version
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

SWEEPS = 400
LONG = {"iterations": SWEEPS, "factors": 4}  # several seconds
ENDLESS = {"iterations": 10**6, "factors": 4}


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a function returns something true; the limit is for a busy machine."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def logged_sweeps(text: str) -> list[int]:
    return [
        int(line.split("sweep ")[1].split()[0]) for line in text.splitlines() if " sweep " in line
    ]


def test_a_job_runs_on_the_machine_and_its_log_comes_back(
    remote: Machine, storage: Storage, make_job, train: Train, caplog
) -> None:
    spec = make_job(iterations=5)
    figures = train()
    assert figures["worker"] == "ssh"
    assert figures["version"] == spec.version
    verify_version(storage, spec.version)
    assert logged_sweeps(caplog.text)[:5] == [1, 2, 3, 4, 5]
    assert remote.workers() == []
    assert "PRIVATE KEY" not in caplog.text


def test_a_broken_connection_neither_repeats_nor_loses_log_lines(
    remote: Machine, make_job, start_task: Callable[[], Task]
) -> None:
    make_job(**LONG)
    task = start_task()
    until(lambda: len(logged_sweeps(task.log)) > 20)
    remote.hang_up()
    until(lambda: "trying again" in task.log)
    task.figures()
    assert logged_sweeps(task.log)[:SWEEPS] == [*range(1, SWEEPS + 1)]


def test_a_dead_connection_is_noticed_while_the_job_goes_on(
    remote: Machine, make_job, start_task, monkeypatch
) -> None:
    monkeypatch.setenv("RECSYS_WORKER__SSH__LOST_AFTER_S", "60")
    make_job(**LONG)
    task = start_task()
    until(lambda: len(logged_sweeps(task.log)) > 10)
    remote.cut()
    until(lambda: "does not answer" in task.log)
    remote.mend()
    task.figures()
    assert logged_sweeps(task.log)[:SWEEPS] == [*range(1, SWEEPS + 1)]


def test_after_a_power_failure_the_next_try_resumes_from_a_checkpoint(
    remote: Machine, storage: Storage, make_job, start_task, train: Train, caplog
) -> None:
    spec = make_job(**LONG)
    task = start_task()
    until(lambda: re.search(r"checkpoint phase=fit sweep=\d\d", task.log))
    remote.power_off()
    task.process.join(60)
    assert "WorkerError" in task.log
    assert "does not answer" in task.log
    with pytest.raises(WorkerError, match=r"does not answer.* for \d+ s now"):
        train()
    remote.power_on()
    train()
    assert logged_sweeps(caplog.text)[0] >= 10
    verify_version(storage, spec.version)


def test_a_machine_that_was_restarted_has_lost_the_job(
    remote: Machine, make_job, start_task
) -> None:
    make_job(**ENDLESS)
    task = start_task()
    until(lambda: len(logged_sweeps(task.log)) > 10)
    remote.power_off()
    remote.power_on()
    task.process.join(60)
    assert "has lost the job" in task.log


def test_a_killed_task_finds_its_job_again_and_there_is_only_one(
    remote: Machine, make_job, start_task
) -> None:
    make_job(**ENDLESS)
    first = start_task()
    until(lambda: len(logged_sweeps(first.log)) > 10)
    worker = remote.workers()
    first.process.kill()
    second = start_task()
    until(lambda: len(logged_sweeps(second.log)) > 10)
    assert remote.workers() == worker
    assert "runs already on" in second.log
    second.process.terminate()
    until(lambda: remote.workers() == [])


def test_a_job_that_ended_after_its_task_was_killed_is_not_repeated(
    remote: Machine, storage: Storage, make_job, start_task
) -> None:
    spec = make_job(**LONG)
    first = start_task()
    until(lambda: len(logged_sweeps(first.log)) > 10)
    first.process.kill()
    until(lambda: remote.workers() == [])
    second = start_task()
    assert second.figures()["version"] == spec.version
    assert logged_sweeps(second.log) == []
    verify_version(storage, spec.version)


def test_a_job_is_ended_if_its_matrix_was_built_again(
    remote: Machine, storage: Storage, make_job, start_task
) -> None:
    make_job(**ENDLESS)
    first = start_task()
    until(lambda: len(logged_sweeps(first.log)) > 10)
    old = remote.workers()
    first.process.kill()
    name = re.search(r"starting job (\S+) on", first.log)[1]
    spec = make_job(iterations=2)

    class Remembered(dict):
        """What Airflow keeps of a task between its tries."""

        set = dict.__setitem__

    remembered = Remembered(training_job={"job": name, "launcher": "Ssh", "id": name})
    figures = TrainOnWorkerOperator(task_id="train").run(
        DAY, load_settings(), {"task_state_store": remembered}
    )
    assert figures["version"] == spec.version
    assert spec.version in remembered["training_job"]["id"]
    assert not {*old} & {*remote.workers()}


def test_a_preempted_machine_on_compute_engine_is_started_again(
    remote: Machine, storage: Storage, make_job, train: Train, monkeypatch
) -> None:
    spec = make_job(iterations=2)
    with compute_server() as compute:
        described = {
            "project": PROJECT,
            "zone": ZONE,
            "instance": INSTANCE,
            "endpoint": compute.endpoint,
        }
        monkeypatch.setenv("RECSYS_WORKER__GCE", json.dumps(described))
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", connection(compute.port))
        assert train()["version"] == spec.version
        assert (compute.asked, compute.state) == (["start"], "RUNNING")


def test_two_tasks_at_once_share_one_job(remote: Machine, make_job, start_task) -> None:
    make_job(**LONG)
    tasks = [start_task(), start_task()]
    until(remote.workers)
    (worker,) = remote.workers()
    os.kill(worker, signal.SIGSTOP)  # the job must not end before both tasks follow it
    for task in tasks:
        until(lambda task=task: re.search("starting job|runs already on", task.log))
    assert remote.workers() == [worker]
    os.kill(worker, signal.SIGCONT)
    assert tasks[0].figures() == tasks[1].figures()


def test_ending_the_task_ends_the_job(remote: Machine, make_job, start_task) -> None:
    make_job(**ENDLESS)
    task = start_task()
    until(lambda: len(logged_sweeps(task.log)) > 10)
    task.process.terminate()
    until(lambda: remote.workers() == [], 5)
    task.process.join(30)
    assert "ended by signal 15" in task.log


def test_a_killed_worker_is_reported(remote: Machine, make_job, start_task) -> None:
    make_job(**ENDLESS)
    task = start_task()
    until(lambda: len(logged_sweeps(task.log)) > 10)
    os.kill(remote.workers()[0], signal.SIGKILL)
    task.process.join(30)
    assert "ended by signal 9, most likely because memory ran out" in task.log


def test_a_job_over_its_time_limit_is_ended_on_the_machine(
    remote: Machine, make_job, train: Train, monkeypatch
) -> None:
    monkeypatch.setenv("RECSYS_WORKER__TIMEOUT_S", "3")
    make_job(**ENDLESS)
    with pytest.raises(ModelError, match="timeout_s = 3"):
        train()
    assert remote.workers() == []


def test_a_failed_worker_says_why(
    remote: Machine, storage: Storage, make_job, train: Train
) -> None:
    make_job(iterations=1)
    storage.put(paths.job(DAY, "train.npz"), b"rubbish")
    with pytest.raises(ModelError, match=r"train\.npz.*run build_matrix again"):
        train()


def test_another_machine_at_the_same_address_is_refused(
    remote: Machine, make_job, train: Train, monkeypatch
) -> None:
    make_job(iterations=1)
    other = (remote.folder / "key.pub").read_text()
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_WORKER", remote.connection(host_key=other))
    with pytest.raises(SettingsError, match="shows another host key"):
        train()


@pytest.mark.parametrize(
    "extra",
    [{}, {"no_host_key_check": True}],
    ids=["by default", "also where the check is switched off"],
)
def test_a_machine_whose_key_is_not_known_is_refused(
    extra, remote: Machine, make_job, train: Train, monkeypatch
) -> None:
    make_job(iterations=1)
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_WORKER", remote.connection(host_key=None, **extra))
    with pytest.raises(SettingsError, match=r"host key of .* is not known"):
        train()


def test_a_key_that_the_machine_does_not_know_is_refused(
    remote: Machine, make_job, train: Train, monkeypatch
) -> None:
    make_job(iterations=1)
    wrong = (remote.folder / "host_key").read_text()
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_WORKER", remote.connection(private_key=wrong))
    with pytest.raises(
        SettingsError, match=r"refuses user .*private_key of connection recsys_worker"
    ) as error:
        train()
    assert wrong.splitlines()[1] not in str(error.value)


@pytest.mark.parametrize(
    ("python", "why"),
    [("/usr/bin/python3", "No module named"), ("/nowhere/python", "/nowhere/python")],
)
def test_a_machine_without_the_package_says_so(
    python, why, remote: Machine, make_job, train: Train, monkeypatch
) -> None:
    make_job(iterations=1)
    config = remote.folder / "sshd_config"
    config.write_text(config.read_text().replace("PYTHONPATH", "NOT_PYTHONPATH"))
    remote.power_off()
    remote.power_on()
    monkeypatch.setenv("RECSYS_WORKER__SSH__PYTHON", python)
    with pytest.raises(SettingsError, match=f"cannot run the worker.*{why}"):
        train()


def test_credentials_reach_only_the_worker(remote: Machine, storage: Storage, make_job) -> None:
    make_job(**ENDLESS)
    launcher = Ssh(load_settings().worker)
    job = Job(
        "recsys-secret",
        storage.url(paths.job(DAY, "spec.json")),
        60,
        {"AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"},
        lambda: b"",
    )
    launcher.start(job)
    until(remote.workers)
    assert (
        b"AZURE_STORAGE_ACCOUNT_KEY=c2VjcmV0"
        in Path(f"/proc/{remote.workers()[0]}/environ").read_bytes()
    )
    assert remote.pids("c2VjcmV0") == []
    assert not [
        file
        for file in remote.folder.rglob("*")
        if file.is_file() and b"c2VjcmV0" in file.read_bytes()
    ]
    launcher.cancel(job.name)
    until(lambda: launcher.status(job.name) == "failed")
