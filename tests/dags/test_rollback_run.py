"""A rollback by the trigger form, as the person on duty does it, and what the shop then gets."""

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from support.site import storage, until

from recsys_ops.models.deployments import list_deployments, read_deployment_state
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings


def offered(site: SimpleNamespace) -> Any:
    """The versions that the trigger form offers; asks Airflow to read the DAG file again."""
    dag = site.airflow.call("GET", "dags/recsys_rollback/details")
    with suppress(RuntimeError):  # Airflow has been asked before
        site.airflow.call("PUT", f"parseDagFile/{dag['file_token']}")
    return dag["params"]["version"]["schema"]["examples"]


def answered(site: SimpleNamespace) -> str:
    """The version of the lists that the shop gets."""
    client = redis.Redis(port=int(site.env["RECSYS_TEST_REDIS_PORT"]))
    return (
        RecommendationStore(client, ServingSettings(prefix="site"))
        .recommendations("nobody")
        .version
    )


def test_a_chosen_older_version_is_live_until_the_newer_is_chosen(
    site: SimpleNamespace, live: str
) -> None:
    store = storage(site)
    older = list_deployments(store)[0]["version"]
    until(lambda: offered(site) == [older])
    with pytest.raises(RuntimeError, match="400"):
        site.airflow.trigger("recsys_rollback", version=older, reason="bad")
    without = site.airflow.trigger("recsys_rollback", version=older)
    assert "version and reason are needed" in site.airflow.failure(
        "recsys_rollback", without, "rollback"
    )

    site.airflow.wait(
        "recsys_rollback",
        site.airflow.trigger("recsys_rollback", version=older, reason="robots bought it all"),
    )
    assert answered(site) == older
    noted = list_deployments(store)[-1]
    assert (noted["version"], noted["reason"], noted["by"]) == (
        older,
        "robots bought it all",
        site.airflow.login[0],
    )
    until(lambda: offered(site) == [live])

    run = next(
        run["dag_run_id"]
        for run in reversed(site.airflow.runs("recsys_retrain"))
        if run["state"] == "success"
    )
    clear = {
        "dry_run": False,
        "task_ids": ["refresh_redis"],
        "dag_run_id": run,
        "only_failed": False,
    }
    site.airflow.call("POST", "dags/recsys_retrain/clearTaskInstances", json=clear)
    site.airflow.wait("recsys_retrain", run)
    path = f"dags/recsys_retrain/dagRuns/{run}/taskInstances/refresh_redis/xcomEntries/return_value"
    figures = site.airflow.call("GET", path)["value"]
    assert (figures["version"], figures["live"]) == (live, False)
    assert "rolled back" in figures["held_back"]
    assert answered(site) == older

    site.airflow.wait(
        "recsys_rollback",
        site.airflow.trigger("recsys_rollback", version=live, reason="it was the catalogue"),
    )
    assert answered(site) == live
    assert read_deployment_state(store)["blocked"] == {}
