"""An Airflow that lives in one folder: environment, start, trigger, wait, stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

PROJECT = Path(__file__).parents[3]

Report = Callable[[str], None]


def environment(
    home: Path, *, metadata: sa.URL, shop: sa.URL, redis_port: int, port: int
) -> dict[str, str]:
    """The environment of an Airflow in `home`, whose storage is ``home/blob``.

    Airflow's metadata must be in PostgreSQL: in SQLite a backfill and the scheduler block each
    other.

    Parameters
    ----------
    metadata, shop : the databases of Airflow and of the shop
    redis_port : the port of the Redis that the lists are published to
    port : the port of Airflow's pages
    """
    own = metadata.render_as_string(hide_password=False)
    connections = {
        "RECSYS_DB": {
            "conn_type": "postgres",
            "login": shop.username,
            "password": shop.password,
            "host": shop.host or shop.query["host"],
            "port": shop.port,
            "schema": shop.database,
        },
        "RECSYS_REDIS": {"conn_type": "redis", "host": "127.0.0.1", "port": redis_port},
    }
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": own,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": own,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL": "error",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        "PYTHONWARNINGS": "ignore",
        "RECSYS_STORAGE__ROOT": f"file://{home}/blob",
        **{f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()},
    }


class Airflow:
    """A running Airflow; the methods call its REST API."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.home = Path(env["AIRFLOW_HOME"])
        self.url = env["AIRFLOW__API__BASE_URL"]
        self._client = httpx.Client(base_url=self.url, timeout=120)
        self._log = f"Its log is {self.home / 'airflow.log'}"

    @property
    def login(self) -> tuple[str, str]:
        """The user and the password that Airflow made on its first start."""
        passwords = json.loads(
            (self.home / "simple_auth_manager_passwords.json.generated").read_text()
        )
        return "admin", passwords["admin"]

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """One REST call below ``/api/v2``. Raises RuntimeError on an error answer or none."""
        try:
            answer = self._client.request(method, f"/api/v2/{path}", **kwargs)
        except httpx.TransportError as error:
            raise RuntimeError(
                f"Airflow does not answer at {self.url}: {error}. {self._log}"
            ) from error
        if answer.is_error:
            raise RuntimeError(
                f"Airflow answered {method} {path} with status {answer.status_code}: "
                f"{answer.text[:500]}. {self._log}"
            )
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str, logical_date: datetime | None = None, /, **conf: Any) -> str:
        """Start a run as the UI's Trigger button does; `conf` is the form. Returns the run id."""
        body = {"logical_date": logical_date.isoformat() if logical_date else None, "conf": conf}
        return str(self.call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def pause(self, dag_id: str, paused: bool) -> None:
        self.call("PATCH", f"dags/{dag_id}", json={"is_paused": paused})

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The runs of a DAG, oldest first."""
        return list(
            self.call(
                "GET", f"dags/{dag_id}/dagRuns", params={"order_by": "run_after", "limit": 100}
            )["dag_runs"]
        )

    def wait_for_runs(
        self, dag_id: str, run_type: str, count: int, timeout: float = 180
    ) -> list[dict[str, Any]]:
        """The runs of a type, once there are `count` of them."""
        deadline = time.monotonic() + timeout
        while True:
            runs = [run for run in self.runs(dag_id) if run["run_type"] == run_type]
            if len(runs) >= count:
                return runs
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"Airflow started {len(runs)} of {count} {run_type} runs of {dag_id} within "
                    f"{timeout:.0f} s. {self._log}"
                )
            time.sleep(0.3)

    def failure(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Wait for a run to fail at a task; returns the task's log of its last try."""
        try:
            self.wait(dag_id, run_id)
        except RuntimeError:
            task = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
            tries = self.call("GET", task)["try_number"]
            return json.dumps(
                self.call("GET", f"{task}/logs/{tries}", headers={"Accept": "application/json"})
            )
        raise RuntimeError(f"{dag_id} {run_id} did not fail")

    def wait(
        self, dag_id: str, run_id: str, timeout: float = 300, report: Report | None = None
    ) -> dict[str, dict[str, Any]]:
        """Wait for a run's end. Returns its task instances by task id.

        report : is called every second with the number of tasks done and the tasks that run

        Raises RuntimeError unless the run succeeded in time.
        """
        run = f"dags/{dag_id}/dagRuns/{run_id}"
        started = reported = time.monotonic()
        while (state := self.call("GET", run)["state"]) not in ("success", "failed"):
            if time.monotonic() > started + timeout:
                raise RuntimeError(
                    f"The run {run_id} of {dag_id} is still {state} after {timeout:.0f} s. "
                    f"{self._log}"
                )
            if report and time.monotonic() > reported + 1:
                report(_describe(self.call("GET", f"{run}/taskInstances")["task_instances"]))
                reported = time.monotonic()
            time.sleep(0.3)
        instances = self.call("GET", f"{run}/taskInstances")["task_instances"]
        if state == "failed":
            failed = [task["task_id"] for task in instances if task["state"] == "failed"]
            raise RuntimeError(
                f"The run {run_id} of {dag_id} failed at {', '.join(failed)}. "
                f"The task's log is below {self.home}/logs/dag_id={dag_id}"
            )
        return {task["task_id"]: task for task in instances}

    def wait_until_ready(
        self, process: subprocess.Popen[bytes], timeout: float = 600, report: Report | None = None
    ) -> None:
        """Wait until the API answers, we are logged in, and both DAGs are known.

        report : is called with what is missing

        Raises RuntimeError when `process` ended, or when the time is over.
        """
        deadline = time.monotonic() + timeout
        while missing := self._missing():
            if process.poll() is not None:
                raise RuntimeError(
                    f"Airflow stopped before it was ready, with exit status {process.returncode}. "
                    f"{self._log}; its last lines say why"
                )
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"Airflow is not ready after {timeout:.0f} s; it still waits for {missing}. "
                    f"{self._log}. If this machine is busy, try again when it is less so"
                )
            if report:
                report(f"waiting for {missing}")
            time.sleep(0.3)

    def _missing(self) -> str | None:
        """What Airflow still lacks, in the order in which it comes; None when it is ready."""
        try:
            user, password = self.login
        except (OSError, ValueError, KeyError):
            return "its database and the first login"
        try:
            answer = self._client.post("/auth/token", json={"username": user, "password": password})
            self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        except (httpx.HTTPError, ValueError, KeyError):
            return "its API server"
        for dag_id in ("recsys_ingest", "recsys_retrain"):
            try:
                self.call("GET", f"dags/{dag_id}/details")
            except RuntimeError:
                return f"the DAG {dag_id}"
        return None


def _describe(instances: list[dict[str, Any]]) -> str:
    done = sum(task["state"] in ("success", "skipped") for task in instances)
    running = [task["task_id"] for task in instances if task["state"] == "running"]
    return ", ".join([f"{done} of {len(instances)} tasks done", *running])


@contextmanager
def standalone(env: Mapping[str, str], report: Report | None = None) -> Iterator[Airflow]:
    """``airflow standalone``, its output in ``airflow.log``; stopped with all its parts on exit.

    report : is called with what Airflow still waits for before it is ready
    """
    home = Path(env["AIRFLOW_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    with (home / "airflow.log").open("ab") as log:
        command = [sys.executable, "-m", "airflow", "standalone"]
        process = subprocess.Popen(  # noqa: S603
            command, env=dict(env), stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    try:
        airflow = Airflow(env)
        airflow.wait_until_ready(process, report=report)
        yield airflow
    finally:
        with suppress(ProcessLookupError):  # Airflow may have stopped by itself
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
