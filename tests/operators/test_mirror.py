"""Versions are mirrored in a real MLflow server that asks for a password."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from mlflow import MlflowClient
from mlflow.entities import Run
from support.deployments import went_live
from support.jobs import DAY, history
from support.packages import python_with

from recsys_ops.demo.services import free_port
from recsys_ops.errors import TrackingError
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.verdict import write_verdict
from recsys_ops.models.version import evaluation_figures
from recsys_ops.operators.mirror import MirrorOperator
from recsys_ops.run_day import day_start
from recsys_ops.settings import load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main

NAME, PASSWORD = "recsys", "s3cret-s3cret"
BLESSED = {"blessed": True, "summary": "blessed: NDCG@20 +1.0 %", "rules": [], "forced": None}
REFUSED = {"blessed": False, "summary": "not blessed: NDCG@20 −7.2 %", "rules": [], "forced": None}
AUTH = f"""
[mlflow]
default_permission = READ
database_uri = sqlite:///users.db
admin_username = {NAME}
admin_password = {PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an MLflow server.

    The server runs in its own virtual environment, because its package does not fit with ours.
    """
    folder = tmp_path_factory.mktemp("mlflow")
    python = python_with("mlflow[auth]==3.17.2")
    (folder / "auth.ini").write_text(AUTH)
    port = free_port()
    stores = (
        "--backend-store-uri",
        "sqlite:///mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    )
    command = [
        python,
        "-m",
        "mlflow",
        "server",
        *stores,
        "--port",
        str(port),
        "--workers",
        "1",
        "--app-name",
        "basic-auth",
    ]
    own = {
        "MLFLOW_AUTH_CONFIG_PATH": "auth.ini",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | own,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(500):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()[-3000:]
                time.sleep(0.5)
        else:
            raise RuntimeError(f"MLflow did not start: {(folder / 'log').read_text()[-3000:]}")
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(120)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", f"file://{tmp_path}/blob")
    return Storage(f"file://{tmp_path}/blob")


Connect = Callable[..., None]


@pytest.fixture
def connect(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Set `mlflow.conn_id`, a connection with these fields, and an experiment for each test."""
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        # so that the values that the operator sets are removed after the test
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")

    def set_up(port: int, **credentials: str) -> None:
        fields = {
            "conn_type": "http",
            "schema": "http",
            "host": "127.0.0.1",
            "port": port,
            **credentials,
        }
        monkeypatch.setenv("AIRFLOW_CONN_TRACKING", json.dumps(fields))
        monkeypatch.setenv("RECSYS_MLFLOW__CONN_ID", "tracking")
        monkeypatch.setenv("RECSYS_MLFLOW__EXPERIMENT", tmp_path.name)
        load_settings.cache_clear()

    yield set_up
    load_settings.cache_clear()


@pytest.fixture
def client(mlflow_server: int, connect: Connect) -> MlflowClient:
    """A client that sees what a person sees in MLflow."""
    connect(mlflow_server, login=NAME, password=PASSWORD)
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = NAME, PASSWORD
    url = f"http://127.0.0.1:{mlflow_server}"
    return MlflowClient(url, url)


def mirror(day: date = DAY) -> dict[str, Any]:
    dag_run = SimpleNamespace(
        run_id="manual__1",
        run_type="manual",
        logical_date=None,
        run_after=day_start(DAY + timedelta(days=2)),
        triggering_user_name=None,
    )
    context: Any = {"dag_run": dag_run, "params": {}}
    return MirrorOperator(task_id="mirror", day=str(day)).execute(context)


def runs(client: MlflowClient, name: str) -> dict[str, Run]:
    experiment = client.get_experiment_by_name(name)
    all_runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert len({run.info.run_name for run in all_runs}) == len(all_runs)
    return {run.info.run_name: run for run in all_runs}


@pytest.fixture
def train(storage: Storage, make_job: Callable[..., JobSpec]) -> Callable[..., str]:
    """A function that makes the version of a day with this verdict."""

    def make(
        day: date, verdict: dict[str, Any], champion: str | None = None, **training: Any
    ) -> str:
        spec = make_job(
            history(last=day, users=120),
            day,
            champion,
            price=1.5,
            factors=8,
            iterations=1,
            **training,
        )
        assert main(storage.url(paths.job(day, "spec.json"))) == 0
        storage.write_json(
            paths.model(spec.version, "metrics.json"), evaluation_figures(storage, spec)
        )
        write_verdict(storage, spec.version, verdict)
        return spec.version

    return make


def test_a_retraining_is_one_run_and_the_alias_is_the_live_version(
    storage: Storage, client: MlflowClient, train: Callable[..., str], tmp_path: Path
) -> None:
    name, day_before = tmp_path.name, DAY - timedelta(days=1)
    good = train(day_before, BLESSED)
    went_live(storage, good, day_before, "blessed")
    bad = train(DAY, REFUSED, good)

    figures = mirror()
    assert (figures["version"], figures["live"]) == (bad, good)
    mirrored = runs(client, name)
    # the live version as well, although it was trained before the first mirror
    assert mirrored.keys() == {good, bad}

    run, metrics = mirrored[bad].data, storage.read_json(paths.model(bad, "metrics.json"))
    for model in ("challenger", "champion", "popularity"):
        assert run.metrics[f"{model}.ndcg_at_20"] == metrics[model]["ndcg@20"]
    assert run.metrics["users"] == metrics["users"]
    assert run.metrics["bootstrap.champion.lower"] == metrics["bootstrap"]["champion"]["lower"]
    assert {"seconds.fit", "cost", "peak_memory_bytes", "parity.overlap"} <= run.metrics.keys()
    assert not any(key.startswith("reference.") for key in run.metrics)
    assert (run.params["training.factors"], run.params["confidence.weights.cart"]) == ("8", "3.0")
    assert (run.params["champion"], run.params["history_version"]) == (good, "7")
    assert run.tags["recsys.verdict"] == "not blessed: NDCG@20 −7.2 %"
    assert (run.tags["recsys.blessed"], run.tags["recsys.day"]) == ("False", str(DAY))
    assert run.tags["recsys.url"] == storage.url(f"models/{bad}")
    assert mirrored[bad].info.status == "FINISHED"

    versions = {
        v.tags["recsys.version"]: v for v in client.search_model_versions(f"name = '{name}'")
    }
    assert versions.keys() == {good, bad}
    assert versions[bad].run_id == mirrored[bad].info.run_id
    assert versions[bad].tags["recsys.url"] == storage.url(f"models/{bad}")
    assert versions[bad].description == "not blessed: NDCG@20 −7.2 %"
    assert client.get_model_version_by_alias(name, "champion").tags["recsys.version"] == good

    # somebody forces the version, and the task runs again
    write_verdict(storage, bad, REFUSED | {"forced": {"reason": "recalled goods", "by": "ann"}})
    went_live(storage, bad, DAY, "recalled goods", "ann")
    mirror()
    again = runs(client, name)
    assert again.keys() == mirrored.keys()
    assert again[bad].info.run_id == mirrored[bad].info.run_id
    assert again[bad].data.tags["recsys.forced"] == "recalled goods (ann)"
    assert len(client.get_metric_history(again[bad].info.run_id, "challenger.ndcg_at_20")) == 1
    assert len(client.search_model_versions(f"name = '{name}'")) == 2
    assert client.get_model_version_by_alias(name, "champion").tags["recsys.version"] == bad


def test_a_day_whose_training_failed_only_moves_the_alias(
    storage: Storage, client: MlflowClient, train: Callable[..., str], tmp_path: Path
) -> None:
    assert mirror() == {"version": None, "live": None, "champion": None}
    assert runs(client, tmp_path.name) == {}
    good = train(DAY, BLESSED)
    went_live(storage, good, DAY, "blessed")
    storage.write_json(
        paths.job(DAY + timedelta(days=1), "spec.json"), {"version": "20260311-0123456789"}
    )
    assert mirror(DAY + timedelta(days=1))["version"] is None
    assert (
        client.get_model_version_by_alias(tmp_path.name, "champion").tags["recsys.version"] == good
    )


def test_a_wrong_password_is_not_shown_and_the_message_says_what_to_check(
    mlflow_server: int,
    connect: Connect,
    train: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(DAY, BLESSED)
    connect(mlflow_server, login=NAME, password="wr0ng")
    with pytest.raises(
        TrackingError,
        match=r"MLflow at http://127.* 401 .*connection tracking \(host, login and password",
    ) as error:
        mirror()
    assert "wr0ng" not in f"{error.value}{caplog.text}"


def test_a_password_without_a_login_is_sent_as_a_token(
    connect: Connect, train: Callable[..., str]
) -> None:
    asked = []

    class Guard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_error(403, "Not yours")

        def log_message(self, *args: Any) -> None:
            pass

    train(DAY, BLESSED)
    server = HTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connect(server.server_port, password="t0ken")
    with pytest.raises(TrackingError, match=r"403 .*or a token as password"):
        mirror()
    server.shutdown()
    assert set(asked) == {"Bearer t0ken"}


def test_a_server_that_does_not_answer_and_a_missing_connection_are_named(
    connect: Connect, train: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(DAY, BLESSED)
    connect(free_port())
    with pytest.raises(TrackingError, match=r"Connection refused.*check that it runs"):
        mirror()
    monkeypatch.delenv("AIRFLOW_CONN_TRACKING")
    with pytest.raises(
        AirflowFailException,
        match=r"no connection tracking: add it with type http, "
        r"or name another one in mlflow\.conn_id",
    ):
        mirror()
