"""Three versions that went live one after the other, in a real Redis."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from recsys_ops.models.spec import JobSpec
from recsys_ops.models.verdict import write_verdict
from recsys_ops.operators.refresh_redis import RefreshRedisOperator
from recsys_ops.run_day import day_start
from recsys_ops.settings import ServingSettings, load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main
from support.jobs import DAY, history

SERVING = ServingSettings(prefix="rollback", buckets=16)
BLESSED = {"blessed": True, "summary": "blessed: fine", "rules": [], "forced": None}
Task = Callable[..., dict[str, Any]]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/blob")


@pytest.fixture
def task(
    storage: Storage, redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Task]:
    """A function that runs one of our tasks in a run that `ann` has triggered."""
    for name, value in {
        "RECSYS_STORAGE__ROOT": storage.root,
        "RECSYS_SERVING__PREFIX": SERVING.prefix,
        "RECSYS_SERVING__BUCKETS": str(SERVING.buckets),
        "AIRFLOW_CONN_RECSYS_REDIS": redis_url,
    }.items():
        monkeypatch.setenv(name, value)
    load_settings.cache_clear()

    def run(operator: Any, run_id: str = "manual__now", **params: str) -> dict[str, Any]:
        after = day_start(DAY + timedelta(days=2))
        dag_run = SimpleNamespace(
            run_id=run_id,
            run_type="manual",
            logical_date=None,
            run_after=after,
            triggering_user_name="ann",
        )
        return operator.execute({"dag_run": dag_run, "params": params})

    yield run
    load_settings.cache_clear()


@pytest.fixture
def live(storage: Storage, task: Task, make_job: Callable[..., JobSpec]) -> list[str]:
    """Three versions of three days, which went live one after the other; the last is live."""
    versions = []
    for day in (DAY - timedelta(days=2), DAY - timedelta(days=1), DAY):
        spec = make_job(
            history(last=day, users=120),
            day,
            versions[-1] if versions else None,
            iterations=1,
            factors=8,
        )
        assert main(storage.url(paths.job(day, "spec.json"))) == 0
        storage.write_json(paths.model(spec.version, "metrics.json"), {})
        write_verdict(storage, spec.version, BLESSED)
        assert refresh(task, day)["live"] is True
        versions.append(spec.version)
    return versions


def refresh(task: Task, day: Any, **params: str) -> dict[str, Any]:
    """Run the task `refresh_redis` of a day."""
    return task(RefreshRedisOperator(task_id="refresh_redis", day=str(day)), **params)
