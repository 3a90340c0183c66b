"""A rollback in a real Redis: an earlier version is live again, and newer ones are blocked."""

# ruff: noqa: F811

from datetime import timedelta
from typing import Any

import pytest
import redis
from airflow.sdk.exceptions import AirflowFailException
from support.jobs import DAY
from support.rollback import BLESSED, SERVING, Task, live, refresh, storage, task  # noqa: F401

from recsys_ops.errors import ServingError
from recsys_ops.models.deployments import (
    champion_deployment,
    list_deployments,
    read_deployment_state,
    release_version,
)
from recsys_ops.models.verdict import write_verdict
from recsys_ops.operators import rollback
from recsys_ops.operators.rollback import OFFERED, RollbackOperator, offer_versions
from recsys_ops.run_day import TASKS_TEST_PREFIX
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import live_version, swap_back
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage


def roll_back(
    task: Task, version: str, reason: str = "robots bought everything", **run: str
) -> dict[str, Any]:
    return task(
        RollbackOperator(task_id="rollback", day=str(DAY)), version=version, reason=reason, **run
    )


def test_a_rollback_blocks_newer_versions_until_they_are_released(
    storage: Storage, task: Task, live: list[str], redis_client: redis.Redis
) -> None:
    first, second, third = live
    figures = roll_back(task, first)
    assert live_version(find_nodes(redis_client, SERVING)) == first
    assert (figures["live"], figures["rolled_back_from"], figures["by"]) == (
        True,
        sorted([second, third]),
        "ann",
    )
    assert list_deployments(storage)[-1] == {
        "version": first,
        "day": str(DAY - timedelta(days=2)),
        "reason": "robots bought everything",
        "by": "ann",
    }
    for day in (DAY - timedelta(days=1), DAY):
        for params in ({}, {"publish_reason": "somebody cleared the task"}):
            held = refresh(task, day, **params)
            assert held["live"] is False
            assert f"rolled back to {first}: robots bought everything" in held["held_back"]
    assert live_version(find_nodes(redis_client, SERVING)) == first
    assert champion_deployment(storage, DAY + timedelta(days=1))["version"] == first

    release_version(storage, third)
    assert refresh(task, DAY)["live"] is True
    assert live_version(find_nodes(redis_client, SERVING)) == third


def test_a_blocked_version_that_a_person_chooses_is_released(
    storage: Storage, task: Task, live: list[str], redis_client: redis.Redis
) -> None:
    first, second, third = live
    roll_back(task, first)
    roll_back(task, third, "it was the catalogue after all")
    assert live_version(find_nodes(redis_client, SERVING)) == third
    assert list(read_deployment_state(storage)["blocked"]) == [second]


@pytest.mark.parametrize("swapped", [True, False])
def test_a_version_whose_swap_was_not_recorded_is_blocked_too(
    storage: Storage, task: Task, live: list[str], redis_client: redis.Redis, swapped: bool
) -> None:
    first, second, third = live
    record = storage.read_json(paths.LIVE)
    record["swapping"] = record["deployments"].pop()
    storage.write_json(paths.LIVE, record)
    if not swapped:
        swap_back(find_nodes(redis_client, SERVING), second)
    figures = roll_back(task, first)
    assert figures["rolled_back_from"] == sorted([second, third])
    assert set(read_deployment_state(storage)["blocked"]) == {second, third}
    assert (third in [d["version"] for d in list_deployments(storage)]) is swapped


def test_a_rollback_that_failed_is_finished_by_the_next_try(
    storage: Storage,
    task: Task,
    live: list[str],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_RECSYS_REDIS", "redis://127.0.0.1:1")
        with pytest.raises(ServingError):
            roll_back(task, live[0])
    assert live_version(find_nodes(redis_client, SERVING)) == live[2]
    assert list_deployments(storage)[-1]["version"] == live[2]
    for _ in range(2):
        assert roll_back(task, live[0])["rolled_back_from"] == sorted(live[1:])
    assert live_version(find_nodes(redis_client, SERVING)) == live[0]
    assert [d["version"] for d in list_deployments(storage)] == [*live, live[0]]


def test_damaged_refused_or_missing_versions_never_go_live(
    storage: Storage, task: Task, live: list[str], redis_client: redis.Redis
) -> None:
    first, second, third = live
    before = storage.get(paths.LIVE)

    def refused(version: str, words: str) -> None:
        with pytest.raises(AirflowFailException, match=words):
            roll_back(task, version)
        assert live_version(find_nodes(redis_client, SERVING)) == third
        assert storage.get(paths.LIVE) == before

    refused(
        "20200101-0000000000",
        f"no model version 20200101-0000000000; there are {third}, {second}, {first}",
    )
    write_verdict(
        storage, first, BLESSED | {"blessed": False, "summary": "not blessed: NDCG@20 −7.2 %"}
    )
    refused(first, "not blessed: NDCG@20")
    data = bytearray(storage.get(paths.model(second, "recommendations.parquet")))
    data[-1] ^= 1
    storage.put(paths.model(second, "recommendations.parquet"), bytes(data))
    refused(second, r"recommendations\.parquet is damaged \(SHA-256 differs\)")


def test_a_tasks_test_checks_and_publishes_nothing(
    storage: Storage, task: Task, live: list[str], redis_client: redis.Redis
) -> None:
    before = storage.get(paths.LIVE)
    figures = roll_back(task, live[0], run_id=f"{TASKS_TEST_PREFIX}x")
    assert (figures["live"], figures["held_back"]) == (False, "a tasks test publishes nothing")
    assert live_version(find_nodes(redis_client, SERVING)) == live[2]
    assert storage.get(paths.LIVE) == before


def test_the_form_offers_the_blessed_versions_but_the_live_one(
    task: Task, live: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: dict[str, Any] = {}
    monkeypatch.setattr(
        rollback.Variable, "set", lambda name, value, serialize_json: offered.update({name: value})
    )
    offer_versions({})  # type: ignore[typeddict-item]
    assert offered == {OFFERED: [live[1], live[0]]}
