"""Mirror model versions in MLflow, as runs and as versions of a registered model.

Nothing reads them from there.
"""

import os
import time
from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import find_connection, open_storage
from recsys_ops.errors import TrackingError
from recsys_ops.models import files
from recsys_ops.operators.alerts import http_url
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from recsys_ops.storage.objects import Storage

ALIAS = "champion"
_VERSION, _URL = "recsys.version", "recsys.url"
_NAMED_BY = {
    *("training", "confidence", "evaluation", "lists"),
    *("history_version", "window_start", "champion", "reference", "code"),
}


class MirrorOperator(DayOperator):
    """Mirror the day's version, blessed or not, and the live version.

    The alias `champion` of the registered model points to the live version. Another run of the task
    updates what is there and adds nothing. A day whose training failed has no version to mirror.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.models.deployments import list_deployments
        from recsys_ops.storage.objects import error_reason

        assert settings.mlflow.conn_id is not None
        storage, name = open_storage(settings), settings.mlflow.experiment
        connection = find_connection(settings.mlflow.conn_id, "http", "mlflow.conn_id")
        trained, live = (
            _trained(storage, day),
            next((past["version"] for past in reversed(list_deployments(storage))), None),
        )
        client = _client(connection)
        from mlflow.exceptions import MlflowException

        try:
            numbers = {
                version: _mirror(client, name, storage, version)
                for version in (trained, live)
                if version
            }
            if live:
                client.set_registered_model_alias(name, ALIAS, numbers[live])
        except MlflowException as error:
            raise TrackingError(
                f"MLflow at {http_url(connection)} did not take it: {error_reason(error)}; "
                f"check that it runs, connection {connection.conn_id} (host, login and password, "
                "or a token as password), and the rights of its account"
            ) from error
        return {"version": trained, "live": live, ALIAS: live and f"{name} {numbers[live]}"}


def _trained(storage: "Storage", day: date) -> str | None:
    """The day's version; None if it is not finished."""
    spec = paths.job(day, files.SPEC)
    if not storage.exists(spec):
        return None
    version: str = storage.read_record(spec, "version")["version"]
    return version if storage.exists(paths.model(version, files.MANIFEST)) else None


def _client(connection: "Connection") -> "MlflowClient":
    """A client of the MLflow server of a connection.

    MLflow reads its credentials from the environment at each request, and the switch of its
    telemetry when it is imported.
    """
    os.environ.update(
        {
            "MLFLOW_TRACKING_USERNAME": connection.login or "",
            "MLFLOW_TRACKING_PASSWORD": connection.password or "",
            "MLFLOW_TRACKING_TOKEN": "" if connection.login else connection.password or "",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the task is retried anyway
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
    )
    from mlflow import MlflowClient

    url = http_url(connection)
    return MlflowClient(tracking_uri=url, registry_uri=url)


def _mirror(client: "MlflowClient", name: str, storage: "Storage", version: str) -> str:
    """Create or update the run and the registered version of a model version.

    name : of the experiment and of the registered model

    Returns the number of the registered version.
    """
    from mlflow.entities import Metric, Param, RunTag

    from recsys_ops.models.registry import describe_version, flatten
    from recsys_ops.models.version import load_manifest

    manifest, details = load_manifest(storage, version), describe_version(storage, version)
    url, verdict = storage.url(f"models/{version}"), details["verdict"]
    run = _run(client, name, version, manifest.run.seconds)
    spec = manifest.spec.model_dump(mode="json", include=_NAMED_BY)
    params = {key: str(value) for key, value in flatten(spec).items()}
    metrics = _metrics(details["metrics"] or {}, manifest.run.model_dump())
    tags = {
        "recsys.day": manifest.day,
        _URL: url,
        "recsys.device": " ".join(manifest.run.device[key] for key in ("kind", "name")),
        "recsys.started_from": manifest.started_from,
        "recsys.verdict": verdict and verdict["summary"],
        "recsys.blessed": verdict and verdict["blessed"],
        "recsys.forced": verdict
        and verdict["forced"]
        and f"{verdict['forced']['reason']} ({verdict['forced']['by']})",
    }
    now = int(time.time() * 1000)
    client.log_batch(
        run.info.run_id,
        metrics=[
            Metric(key, value, now, 0)
            for key, value in metrics.items()
            if run.data.metrics.get(key) != value
        ],
        params=[Param(key, value) for key, value in params.items() if key not in run.data.params],
        tags=[
            RunTag(key, "" if value is None else str(value)) for key, value in tags.items()
        ],  # a tag without a value is written as well, to replace an old value
    )
    number = _registered(client, name, run, {_VERSION: version, _URL: url})
    client.update_model_version(name, number, verdict["summary"] if verdict else "no verdict")
    return number


def _run(client: "MlflowClient", name: str, version: str, seconds: dict[str, float]) -> "Run":
    """The run of a version, created if it is missing; its duration is that of the training."""
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    runs = client.search_runs([experiment_id], f"tags.`{_VERSION}` = '{version}'", max_results=1)
    now, duration_ms = int(time.time() * 1000), int(sum(seconds.values()) * 1000)
    run = (
        runs[0]
        if runs
        else client.create_run(experiment_id, now - duration_ms, {_VERSION: version}, version)
    )
    client.set_terminated(run.info.run_id, end_time=run.info.start_time + duration_ms)
    return run


def _registered(client: "MlflowClient", name: str, run: "Run", tags: dict[str, str]) -> str:
    """The number of a run's registered version, created if it is missing.

    Its source is the run. A server refuses other sources: folders, and Azure's long form
    abfss://container@account….
    """
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    registered = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    model_version = (
        registered[0]
        if registered
        else client.create_model_version(name, run.info.artifact_uri, run.info.run_id, tags)
    )
    return str(model_version.version)


def _metrics(metrics: dict[str, Any], run: dict[str, Any]) -> dict[str, float]:
    """The figures of evaluation and training under names for MLflow, which allows no ``@``."""
    from recsys_ops.models.registry import flatten

    evaluated = (
        "users",
        "challenger",
        "champion",
        "popularity",
        "reference",
        "bootstrap",
        "parity",
    )
    measured = ("seconds", "cost", "peak_memory_bytes", "gpu_peak_memory_bytes")
    figures = {key: metrics[key] for key in evaluated if key in metrics} | {
        key: run[key] for key in measured
    }
    return {
        key.replace("@", "_at_"): float(value)
        for key, value in flatten(figures).items()
        if isinstance(value, (int, float))
    }
