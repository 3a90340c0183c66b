"""The DAGs as a user runs them: by the scheduler, the UI's API, a backfill, and one task alone."""

import os
import re
import signal
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import redis
import yaml
from support.site import storage, until

from recsys_ops.history.table import current_version, read_events
from recsys_ops.ingest.steps import STEPS
from recsys_ops.models.deployments import list_deployments
from recsys_ops.serving.layout import LAYOUT, VERSION, decode_items
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation

ROOT = Path(__file__).parents[2]
INGEST = ["extract_delta", *STEPS, "commit_history", "announce_day", "expire"]
RETRAIN = ["extract_catalogue", "build_matrix", "train", "evaluate", "gate", "refresh_redis"]


def make(site: SimpleNamespace, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", *words],
        cwd=ROOT,
        env=site.env | env,
        capture_output=True,
        text=True,
        check=False,
    )


def task_test(
    site: SimpleNamespace, dag_id: str, tasks: list[str], day: date
) -> subprocess.CompletedProcess[str]:
    return make(site, "task-test", f"DAG={dag_id}", f"TASK={' '.join(tasks)}", f"DATE={day}")


def rendered(site: SimpleNamespace, run_id: str) -> Any:
    return site.airflow.call(
        "GET", f"dags/recsys_ingest/dagRuns/{run_id}/taskInstances/extract_delta"
    )["rendered_fields"]


def kept_history(site: SimpleNamespace) -> pl.DataFrame:
    store = storage(site)
    events = read_events(store, date.min, date.max, version=current_version(store))
    return events.sort("day", "event_id", "item_id")


def test_scheduler_ui_and_dateless_trigger_agree_on_the_day(
    site: SimpleNamespace, loaded: dict[str, str], deployed: str, yesterday: date, due: date
) -> None:
    runs = {
        "scheduled": loaded["scheduled"],
        "UI": site.airflow.trigger("recsys_ingest", datetime.now(UTC)),
        "without a date": deployed,
    }
    site.airflow.wait("recsys_ingest", runs["UI"])
    days = {"scheduled": str(due), "UI": str(yesterday), "without a date": str(yesterday)}
    assert {kind: rendered(site, run)["day"] for kind, run in runs.items()} == days
    figures = storage(site).read_json(paths.report("extract_delta", yesterday))
    assert figures["first_day"] == str(yesterday - timedelta(days=3))


def test_the_sql_is_shown_rendered_and_xcom_carries_only_counts(
    site: SimpleNamespace, loaded: dict[str, str]
) -> None:
    assert "FROM events e" in rendered(site, loaded["load"])["sql"]
    task = f"dags/recsys_ingest/dagRuns/{loaded['load']}/taskInstances/fix_types"
    path = f"{task}/xcomEntries/return_value"
    figures = site.airflow.call("GET", path)["value"]
    assert figures["rows_in"] == figures["kept"] + figures["rejected"] > 0
    assert all(isinstance(value, (int, float, str, dict, list)) for value in figures.values())
    assert len(str(figures)) < 2000


@pytest.mark.parametrize(
    "wrong", [{"day": "2026-02-30"}, {"day": "yesterday"}, {"day": 20260101}, {"lookback_days": -1}]
)
def test_an_impossible_form_is_refused_before_anything_runs(
    site: SimpleNamespace, wrong: dict[str, Any]
) -> None:
    with pytest.raises(RuntimeError, match=r"status 400: .*Invalid input for param"):
        site.airflow.trigger("recsys_ingest", **wrong)


def test_a_day_in_the_future_fails_and_says_so(
    site: SimpleNamespace, loaded: dict[str, str]
) -> None:
    run = site.airflow.trigger("recsys_ingest", day="2099-01-01")
    assert "2099-01-01 is not over yet" in site.airflow.failure(
        "recsys_ingest", run, "extract_delta"
    )


def test_a_backfill_of_five_days_keeps_history_and_starts_no_retraining(
    site: SimpleNamespace, live: str, due: date
) -> None:
    before = kept_history(site)
    first = due - timedelta(days=4)
    # a date without an offset would be read in this zone, and the first day would be left out
    zone = {"AIRFLOW__CORE__DEFAULT_TIMEZONE": "America/Los_Angeles"}
    done = make(site, "backfill", f"FROM={first}", f"TO={due}", **zone)
    assert done.returncode == 0, done.stderr
    windows = []
    for run in site.airflow.wait_for_runs("recsys_ingest", "backfill", 5, timeout=200):
        tasks = site.airflow.wait("recsys_ingest", run["dag_run_id"])
        assert {tasks[name]["state"] for name in ("announce_day", "expire")} == {"skipped"}
        day = rendered(site, run["dag_run_id"])["day"]
        figures = storage(site).read_json(paths.report("extract_delta", date.fromisoformat(day)))
        windows.append((figures["first_day"], day))
    assert sorted(windows) == [
        (day, day) for day in (str(first + timedelta(days=n)) for n in range(5))
    ]
    assert kept_history(site).equals(before)
    events = site.airflow.call(
        "GET", "assets/events", params={"source_dag_id": "recsys_ingest", "limit": 100}
    )["asset_events"]
    assert events
    assert not [event for event in events if event["source_run_id"].startswith("backfill")]


def test_an_announced_day_starts_a_retraining_that_goes_live(
    site: SimpleNamespace, live: str, yesterday: date
) -> None:
    metrics = storage(site).read_json(paths.model(live, "metrics.json"))
    assert live.startswith(f"{yesterday:%Y%m%d}-")
    assert metrics["champion_version"].startswith(f"{yesterday - timedelta(days=1):%Y%m%d}-")
    client = redis.Redis(port=int(site.env["RECSYS_TEST_REDIS_PORT"]))
    store = RecommendationStore(client, ServingSettings(prefix="site"))
    user = kept_history(site)["user_id"][0]
    assert store.recommendations("nobody").source == "popular"
    assert store.recommendations(user).version == store.recommendations("nobody").version == live
    sellable = (
        storage(site)
        .read_parquet(current_generation(storage(site), paths.CATALOGUE, yesterday))
        .filter((pl.col("stock") > 0) & (pl.col("status") == "published"))
    )
    # the items of all lists of all kinds
    listed = {
        item
        for key in client.scan_iter("site:{*}", count=1000)
        for field, value in client.hgetall(key).items()
        if field not in (VERSION, LAYOUT)
        for item in decode_items(b"text", value)
    }
    assert set(store.recommendations(user).items) <= listed <= set(sellable["item_id"])


def test_a_refused_challenger_fails_its_run_and_the_note_says_why(
    site: SimpleNamespace, live: str, yesterday: date
) -> None:
    file = site.include / "recsys.yaml"
    before = file.read_text()
    settings = yaml.safe_load(before)
    settings["gate"]["min_refit_overlap"] = 1.0  # no refit leaves everybody's list as it was
    file.write_text(yaml.safe_dump(settings))
    try:
        run = site.airflow.trigger("recsys_retrain", day=str(yesterday))
        assert "What is live stays live" in site.airflow.failure("recsys_retrain", run, "gate")
    finally:
        file.write_text(before)
    tasks = site.airflow.call("GET", f"dags/recsys_retrain/dagRuns/{run}/taskInstances")[
        "task_instances"
    ]
    gate, refresh = (
        next(task for task in tasks if task["task_id"] == name)
        for name in ("gate", "refresh_redis")
    )
    assert re.fullmatch(
        r"not blessed: the refit keeps \d+% of the evaluated model's lists, at least 100% needed",
        gate["note"],
    )
    assert refresh["state"] == "upstream_failed"
    store = RecommendationStore(
        redis.Redis(port=int(site.env["RECSYS_TEST_REDIS_PORT"])), ServingSettings(prefix="site")
    )
    assert (
        store.recommendations("nobody").version
        == live
        == list_deployments(storage(site))[-1]["version"]
    )


def test_a_retraining_without_events_fails_in_the_ui_with_what_to_do(
    site: SimpleNamespace, live: str
) -> None:
    run = site.airflow.trigger("recsys_retrain", day="2025-01-01")
    assert "recsys_ingest" in site.airflow.failure("recsys_retrain", run, "build_matrix")
    assert list_deployments(storage(site))[-1]["version"] == live


def test_every_task_can_be_run_alone_and_publishes_nothing(
    site: SimpleNamespace, live: str, yesterday: date
) -> None:
    before = kept_history(site)
    for dag_id, tasks in {"recsys_ingest": INGEST, "recsys_retrain": RETRAIN}.items():
        done = task_test(site, dag_id, tasks, yesterday)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert [line for line in done.stdout.splitlines() if line.startswith(dag_id)] == [
            f"{dag_id} {task} {yesterday}: success" for task in tasks
        ]
    assert kept_history(site).equals(before)
    assert list_deployments(storage(site))[-1]["version"] == live


def test_a_failed_task_alone_has_a_failing_exit_code(
    site: SimpleNamespace, loaded: dict[str, str]
) -> None:
    done = task_test(site, "recsys_ingest", ["fix_types", "deduplicate"], date(2020, 1, 1))
    assert done.returncode != 0
    assert "recsys_ingest fix_types 2020-01-01: failed" in done.stdout
    assert "recsys_ingest deduplicate" not in done.stdout
    assert (
        "raw/day=2020-01-01 is not there: run the task that writes it first"
        in done.stdout + done.stderr
    )


def train_task(site: SimpleNamespace, run: str) -> Any:
    return site.airflow.call("GET", f"dags/recsys_retrain/dagRuns/{run}/taskInstances/train")


def train_log(site: SimpleNamespace, run: str, attempt: int) -> str:
    path = f"dags/recsys_retrain/dagRuns/{run}/taskInstances/train/logs/{attempt}"
    return str(site.airflow.call("GET", path, headers={"Accept": "application/json"}))


@pytest.fixture
def endless(site: SimpleNamespace) -> Any:
    """Trainings that start from now on do not end by themselves."""
    file = site.include / "recsys.yaml"
    before = file.read_text()
    settings = yaml.safe_load(before)
    settings["training"] |= {"iterations": 10**7, "cold_every_days": 1}
    file.write_text(yaml.safe_dump(settings))
    yield
    file.write_text(before)


def test_the_workers_log_is_in_the_tasks_log(
    site: SimpleNamespace, live: str, yesterday: date
) -> None:
    if site.machine is None:
        pytest.skip("a network namespace with an sshd needs root")
    run = next(
        run["dag_run_id"]
        for run in site.airflow.runs("recsys_retrain")
        if run["state"] == "success"
    )
    text = train_log(site, run, 1)
    assert "phase=refit" in text
    assert "sweep 1 of" in text


def test_a_retry_resumes_the_job_and_marking_it_failed_ends_the_job(
    site: SimpleNamespace, live: str, yesterday: date, endless: None
) -> None:
    if site.machine is None:
        pytest.skip("a network namespace with an sshd needs root")
    run = site.airflow.trigger("recsys_retrain", day=str(yesterday))
    worker = until(site.machine.workers)
    until(lambda: "sweep 3 of" in train_log(site, run, 1))
    os.kill(train_task(site, run)["pid"], signal.SIGKILL)
    until(lambda: train_task(site, run)["state"] == "up_for_retry")
    clear = {"dry_run": False, "task_ids": ["train"], "dag_run_id": run, "only_failed": False}
    site.airflow.call("POST", "dags/recsys_retrain/clearTaskInstances", json=clear)
    until(
        lambda: train_task(site, run)["try_number"] == 2 and "sweep 3 of" in train_log(site, run, 2)
    )
    assert site.machine.workers() == worker

    body = {"new_state": "failed"}
    site.airflow.call("PATCH", f"dags/recsys_retrain/dagRuns/{run}/taskInstances/train", json=body)
    until(lambda: site.machine.workers() == [])
    assert train_task(site, run)["state"] == "failed"
    until(
        lambda: site.airflow.call("GET", f"dags/recsys_retrain/dagRuns/{run}")["state"] == "failed"
    )
