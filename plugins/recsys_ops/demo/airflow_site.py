"""An Airflow of its own under one folder: environment, start, trigger, wait, stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

PROJECT = Path(__file__).parents[3]


def environment(
    home: Path, *, metadata: sa.URL, shop: sa.URL, redis_port: int, port: int
) -> dict[str, str]:
    """The environment of an Airflow in `home` whose databases, connections and storage are the given ones and ``home/blob``.

    Not even here does SQLite do for Airflow's metadata: a backfill and the scheduler lock each other out.
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
    """A running Airflow, spoken to by its REST API."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.home = Path(env["AIRFLOW_HOME"])
        self.url = env["AIRFLOW__API__BASE_URL"]
        self._client = httpx.Client(base_url=self.url, timeout=30)

    @property
    def login(self) -> tuple[str, str]:
        """The user and the password that Airflow made on its first start."""
        passwords = json.loads(
            (self.home / "simple_auth_manager_passwords.json.generated").read_text()
        )
        return "admin", passwords["admin"]

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """One REST call below ``/api/v2``; raises on an error answer."""
        answer = self._client.request(method, f"/api/v2/{path}", **kwargs)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str, logical_date: datetime | None = None, /, **conf: Any) -> str:
        """Start a run the way the UI's Trigger button does, `conf` being the form; returns its run id."""
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
        self, dag_id: str, run_type: str, count: int, timeout: float = 60
    ) -> list[dict[str, Any]]:
        """The runs of a type, as soon as there are `count` of them."""
        deadline = time.monotonic() + timeout
        while (
            len(found := [run for run in self.runs(dag_id) if run["run_type"] == run_type]) < count
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{len(found)} of {count} {run_type} runs of {dag_id} after {timeout:.0f} s; see {self.home}"
                )
            time.sleep(0.3)
        return found

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

    def wait(self, dag_id: str, run_id: str, timeout: float = 300) -> dict[str, dict[str, Any]]:
        """Wait for a run's end. Returns its task instances by task id; raises RuntimeError unless the run succeeded."""
        deadline = time.monotonic() + timeout
        while (state := self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]) not in (
            "success",
            "failed",
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{dag_id} {run_id} is still {state} after {timeout:.0f} s; see {self.home}/airflow.log"
                )
            time.sleep(0.3)
        found = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        tasks = {task["task_id"]: task for task in found}
        if state == "failed":
            failed = [name for name, task in tasks.items() if task["state"] == "failed"]
            raise RuntimeError(
                f"{dag_id} {run_id} failed at {', '.join(failed)}; see {self.home}/logs/dag_id={dag_id}"
            )
        return tasks

    def wait_until_ready(self, timeout: float = 120) -> None:
        """Wait until the API answers, we are logged in, and both DAGs are known."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                user, password = self.login
                token = self._client.post(
                    "/auth/token", json={"username": user, "password": password}
                ).json()["access_token"]
                self._client.headers["Authorization"] = f"Bearer {token}"
                for dag_id in ("recsys_ingest", "recsys_retrain"):
                    self.call("GET", f"dags/{dag_id}/details")
                return
            except (OSError, httpx.HTTPError, RuntimeError, KeyError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"Airflow did not start; see {self.home}/airflow.log"
                    ) from error
                time.sleep(0.3)


@contextmanager
def standalone(env: Mapping[str, str]) -> Iterator[Airflow]:
    """``airflow standalone``, its output in ``airflow.log``; stopped with all its parts on exit."""
    home = Path(env["AIRFLOW_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    with (home / "airflow.log").open("ab") as log:
        command = [sys.executable, "-m", "airflow", "standalone"]
        process = subprocess.Popen(
            command, env=dict(env), stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    try:
        airflow = Airflow(env)
        airflow.wait_until_ready()
        yield airflow
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
