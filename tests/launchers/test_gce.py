"""The machine on Compute Engine, on a local server of its API, and the DAG that starts it."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.compute_server import INSTANCE, PROJECT, ZONE, ComputeServer, compute_server
from support.google_identity import connection

from recsys_ops.errors import SettingsError, WorkerError
from recsys_ops.launchers.gce import request_stop, start_machine, stop_machine
from recsys_ops.operators.stop_machine import stop_left_on
from recsys_ops.settings import GceSettings, load_settings

ROOT = Path(__file__).parents[2]
CONN = "google_cloud_default"
METHODS = {"start": start_machine, "stop": stop_machine}


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> Iterator[ComputeServer]:
    with compute_server() as server:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", connection(server.port))
        yield server


def machine(compute: ComputeServer, **changes: Any) -> GceSettings:
    return GceSettings(
        **{
            "project": PROJECT,
            "zone": ZONE,
            "instance": INSTANCE,
            "endpoint": compute.endpoint,
            **changes,
        }
    )


def test_start_and_stop_wait_until_the_machine_runs_or_is_stopped(compute: ComputeServer) -> None:
    started = start_machine(machine(compute), CONN)
    assert compute.state == "RUNNING"
    assert started.pop("start_s") >= compute.start_s
    assert started == {
        "instance": INSTANCE,
        "zone": ZONE,
        "machine_type": "g2-standard-12",
        "already_running": False,
    }
    stopped = stop_machine(machine(compute), CONN)
    assert compute.state == "TERMINATED"
    assert not stopped["already_stopped"]
    assert compute.asked == ["start", "stop"]


def test_a_running_machine_is_not_started_nor_a_stopped_one_stopped(
    compute: ComputeServer,
) -> None:
    assert stop_machine(machine(compute), CONN)["already_stopped"]
    compute.status = "RUNNING"
    assert start_machine(machine(compute), CONN)["already_running"]
    assert compute.asked == []


def test_a_machine_that_was_suspended_is_resumed(compute: ComputeServer) -> None:
    compute.status = "SUSPENDED"
    start_machine(machine(compute), CONN)
    assert compute.asked == ["resume"]
    assert compute.state == "RUNNING"


def test_a_stopping_machine_is_started_when_it_has_stopped(compute: ComputeServer) -> None:
    compute.stop_s = 0.5
    start_machine(machine(compute), CONN)
    request_stop(machine(compute), CONN)
    assert compute.state == "STOPPING"
    start_machine(machine(compute), CONN)
    assert compute.state == "RUNNING"
    assert compute.asked == ["start", "stop", "start"]


def test_a_preempted_machine_is_started_again(compute: ComputeServer) -> None:
    start_machine(machine(compute), CONN)
    compute.status = "TERMINATED"
    assert not start_machine(machine(compute), CONN)["already_running"]
    assert compute.state == "RUNNING"


def test_two_starts_at_once_are_one(compute: ComputeServer) -> None:
    compute.start_s = 0.5
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(start_machine, machine(compute), CONN)
        while not compute.asked:
            time.sleep(0.01)
        figures = start_machine(machine(compute), CONN)
        assert not first.result()["already_running"]
    assert figures["already_running"]
    assert compute.asked == ["start"]


def test_a_start_whose_answer_is_lost_is_repeated_and_done_once(
    compute: ComputeServer,
) -> None:
    compute.lost_answers = 1
    start_machine(machine(compute), CONN)
    assert compute.state == "RUNNING"
    assert compute.asked == ["start"]


def test_a_request_to_a_busy_service_is_repeated(compute: ComputeServer) -> None:
    compute.outages = [429, 503]
    start_machine(machine(compute), CONN)
    assert compute.state == "RUNNING"


@pytest.mark.parametrize("code", ["ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED"])
def test_a_start_without_free_machines_says_so_and_can_be_tried_again(
    compute: ComputeServer, code: str
) -> None:
    compute.failures = [code]
    with pytest.raises(
        WorkerError,
        match=rf"{INSTANCE} \(zone {ZONE}, project {PROJECT}\) did not start: {code}.*another zone",
    ):
        start_machine(machine(compute), CONN)
    assert compute.state == "TERMINATED"
    start_machine(machine(compute), CONN)
    assert compute.state == "RUNNING"


def test_a_machine_that_does_not_start_in_time_is_an_error(compute: ComputeServer) -> None:
    compute.start_s = 60
    with pytest.raises(
        WorkerError, match=rf"{INSTANCE} .* is not RUNNING after 1 s; .*start_timeout_s"
    ):
        start_machine(machine(compute, start_timeout_s=1), CONN)


@pytest.mark.parametrize(
    ("method", "missing"), [("start", "start"), ("stop", "stop"), ("start", "get")]
)
def test_the_message_names_the_permissions_that_an_account_lacks(
    compute: ComputeServer, method: str, missing: str
) -> None:
    compute.status = "TERMINATED" if method == "start" else "RUNNING"
    compute.permissions.remove(f"compute.instances.{missing}")
    with pytest.raises(
        SettingsError,
        match=rf"{INSTANCE} .*403 .*'compute.instances.{missing}'.*{CONN}.*instanceAdmin",
    ):
        METHODS[method](machine(compute), CONN)


@pytest.mark.parametrize("method", ["start", "stop"])
@pytest.mark.parametrize(
    "wrong", [{"instance": "gone"}, {"zone": "europe-west1-b"}, {"project": "other"}]
)
def test_a_machine_that_does_not_exist_is_a_wrong_setting(
    compute: ComputeServer, wrong: dict[str, str], method: str
) -> None:
    with pytest.raises(SettingsError, match=rf"{next(iter(wrong.values()))}.* worker.gce.*404"):
        METHODS[method](machine(compute, **wrong), CONN)


def test_a_warning_if_the_machine_would_run_on_without_airflow(
    compute: ComputeServer, caplog: pytest.LogCaptureFixture
) -> None:
    compute.endless = True
    start_machine(machine(compute), CONN)
    start_machine(machine(compute), CONN)
    warnings = [
        record.message
        for record in caplog.records
        if record.name == "recsys_ops.launchers.gce" and record.levelno == logging.WARNING
    ]
    assert len(warnings) == 1
    assert (
        f"set-scheduling {INSTANCE} --zone={ZONE} --project={PROJECT} --max-run-duration=4h"
        in warnings[0]
    )


def test_a_stop_that_google_refuses_is_logged(
    compute: ComputeServer, caplog: pytest.LogCaptureFixture
) -> None:
    compute.permissions.remove("compute.instances.stop")
    compute.status = "RUNNING"
    request_stop(machine(compute), CONN)
    assert "stop it by hand" in caplog.text


class Dag:
    """`run_dag` in its own process; its machine is the one of `compute`."""

    def __init__(self, compute: ComputeServer, home: Path) -> None:
        env = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": str(ROOT / "plugins"),
            f"AIRFLOW_CONN_{CONN.upper()}": connection(compute.port),
            "RECSYS_STORAGE__ROOT": f"file://{home}/blob",
            "RECSYS_WORKER__LAUNCHER": "ssh",
            "RECSYS_MLFLOW__CONN_ID": "tracking",
            "RECSYS_WORKER__GCE": json.dumps(machine(compute, start_timeout_s=3).model_dump()),
        }
        self.compute, self.log = compute, home / "log"
        command = [sys.executable, str(ROOT / "tests" / "support" / "run_dag.py")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.before_the_gate = self.end()

    def begin(self, *, broken: Sequence[str] = (), retries: int = 0) -> None:
        """Start a run in which these tasks fail."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"broken": broken, "retries": retries}) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        """Wait for the end of the run.

        Returns the `states` of the tasks, the state of the `run`, and `found_up`: for each try of
        `train` whether the machine was running already.
        """
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def one_dag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dag]:
    with compute_server() as compute:
        dag = Dag(compute, tmp_path_factory.mktemp("dag"))
        yield dag
        dag.stop()


@pytest.fixture
def dag(one_dag: Dag) -> Dag:
    """The DAG; its machine is stopped, and its account has all rights."""
    one_dag.compute.reset()
    return one_dag


def test_the_deployment_does_not_wait_for_the_machine_s_stop(dag: Dag) -> None:
    assert "train" in dag.before_the_gate
    assert "stop_machine" not in dag.before_the_gate


def test_the_machine_runs_during_retries_of_a_training_and_stops_after(dag: Dag) -> None:
    dag.begin(broken=["train"], retries=1)
    outcome = dag.end()
    assert outcome["found_up"] == [True, True]
    assert outcome["run"] == outcome["states"]["train"] == "failed"
    assert outcome["states"]["stop_machine"] == "success"
    assert dag.compute.asked == ["start", "stop"]
    assert dag.compute.state == "TERMINATED"


def test_a_run_that_fails_before_the_training_starts_no_machine(dag: Dag) -> None:
    dag.begin(broken=["build_matrix"])
    outcome = dag.end()
    assert (
        outcome["states"]["start_machine"] == outcome["states"]["stop_machine"] == "upstream_failed"
    )
    assert dag.compute.asked == []


def test_a_failed_stop_fails_the_run_but_not_the_deployment(dag: Dag) -> None:
    dag.compute.permissions.remove("compute.instances.stop")
    dag.begin()
    outcome = dag.end()
    assert outcome["states"]["refresh_redis"] == "success"
    assert outcome["run"] == outcome["states"]["stop_machine"] == "failed"
    assert dag.compute.state == "RUNNING"
    assert re.search(r'ALERT .*"task": "stop_machine".*compute.instances.stop', dag.log.read_text())


def test_a_refused_model_is_mirrored_without_effect_on_the_run_s_state(
    dag: Dag,
) -> None:
    dag.begin(broken=["gate"])
    outcome = dag.end()
    assert outcome["states"]["refresh_redis"] == "upstream_failed"
    assert outcome["states"]["mirror"] == "success"
    assert outcome["run"] == "failed"
    dag.begin(broken=["mirror"])
    outcome = dag.end()
    assert outcome["states"]["mirror"] == "failed"
    assert outcome["run"] == outcome["states"]["refresh_redis"] == "success"
    assert re.search(r'ALERT .*"task": "mirror".*mirror is broken', dag.log.read_text())


@pytest.mark.parametrize("end", ["killed", "too slow"])
def test_after_a_failed_start_the_machine_is_stopped(dag: Dag, end: str) -> None:
    dag.compute.start_s = 60
    dag.begin()
    while dag.compute.asked != ["start"]:
        time.sleep(0.05)
    if end == "killed":
        dag.process.send_signal(signal.SIGTERM)
    outcome = dag.end()
    assert outcome["states"]["start_machine"] == "failed"
    assert outcome["states"]["train"] == outcome["states"]["stop_machine"] == "upstream_failed"
    assert dag.compute.asked == ["start", "stop"]
    assert dag.compute.state == "TERMINATED"


@pytest.fixture
def configured(compute: ComputeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ComputeServer]:
    """The server, with its machine in the settings."""
    monkeypatch.setenv("RECSYS_WORKER__LAUNCHER", "ssh")
    monkeypatch.setenv("RECSYS_WORKER__GCE", machine(compute).model_dump_json())
    load_settings.cache_clear()
    yield compute
    load_settings.cache_clear()


def test_a_machine_without_a_teardown_is_stopped_when_the_run_ends(
    configured: ComputeServer,
) -> None:
    configured.status = "RUNNING"
    stop_left_on({})
    assert configured.asked == ["stop"]
    configured.status = "TERMINATED"
    stop_left_on({})
    assert configured.asked == ["stop"]
