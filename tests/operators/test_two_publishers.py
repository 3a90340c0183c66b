"""Refreshes and rollbacks at the same time: Redis and ``models/live.json`` say the same."""

# ruff: noqa: F811

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from support.jobs import DAY
from support.publisher import Publisher, publisher
from support.rollback import SERVING, Task, live, storage, task  # noqa: F401

from recsys_ops.models.deployments import read_deployment_state
from recsys_ops.operators.rollback import RollbackOperator
from recsys_ops.serving.layout import live_key, lock_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import live_version
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

TESTS = Path(__file__).parents[1]


@pytest.fixture
def environment(task: Task) -> dict[str, str]:
    """The environment of a process that publishes: the settings of `task`."""
    folders = [TESTS, TESTS.parent / "plugins"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}


@pytest.fixture
def two(environment: dict[str, str]) -> Iterator[tuple[Publisher, Publisher]]:
    with publisher(environment) as one, publisher(environment) as other:
        yield one, other


def test_publishers_at_once_agree_and_a_rollback_stays(
    two: tuple[Publisher, Publisher],
    live: list[str],
    storage: Storage,
    redis_client: redis.Redis,
) -> None:
    first, second, third = live
    refreshing, rolling_back = two
    record = storage.get(paths.LIVE)
    contents = {key: redis_client.dump(key) for key in redis_client.scan_iter()}

    def reset() -> None:
        redis_client.flushall()
        for key, content in contents.items():
            redis_client.restore(key, 0, content)
        redis_client.delete(live_key(SERVING, 3))  # so there is something to publish
        storage.put(paths.LIVE, record)

    for _ in range(2):  # the first time both import more
        reset()
        refreshing.begin("refresh_redis", DAY)
        begun = time.monotonic()
        assert refreshing.end()["live"] is True
        seconds = time.monotonic() - begun
        rolling_back.begin("rollback", DAY, version=second, reason="robots")
        begun = time.monotonic()
        assert rolling_back.end()["live"] is True
        before = time.monotonic() - begun
    # the third version is published again, and meanwhile somebody rolls back from it
    for number in range(16):
        target = (first, second)[number % 2]
        delay = (seconds + before) * number / 16 - before
        reset()
        if delay < 0:
            rolling_back.begin("rollback", DAY, version=target, reason="robots")
            time.sleep(-delay)
        refreshing.begin("refresh_redis", DAY)
        if delay >= 0:
            time.sleep(delay)
            rolling_back.begin("rollback", DAY, version=target, reason="robots")
        assert rolling_back.end()["live"] is True
        refreshing.end()
        check_agreement(storage, redis_client, target)
        assert third in read_deployment_state(storage)["blocked"]

    # two versions are published, in both orders
    days = {second: DAY - timedelta(days=1), third: DAY}
    for number in range(6):
        reset()
        for process, version in zip(two, (live[1:], live[:0:-1])[number % 2], strict=True):
            process.begin("refresh_redis", days[version], publish_reason="the catalogue")
            time.sleep(seconds * number / 12)
        for process in two:
            assert process.end()["live"] is True
        last = read_deployment_state(storage)["deployments"][-1]["version"]
        check_agreement(storage, redis_client, last)


def test_a_killed_publisher_keeps_others_waiting_for_seconds_only(
    environment: dict[str, str],
    live: list[str],
    storage: Storage,
    task: Task,
    redis_client: redis.Redis,
) -> None:
    locked = Path(storage.root.removeprefix("file://"), f"{paths.LIVE}#0")
    with publisher(environment) as refreshing, locked.open("a") as record:
        fcntl.flock(record, fcntl.LOCK_EX)  # the publisher holds its lock and waits for this one
        refreshing.begin("refresh_redis", DAY)
        while not redis_client.exists(lock_key(SERVING)):
            time.sleep(0.001)
        refreshing.process.send_signal(signal.SIGKILL)
        refreshing.process.wait()
    assert 0 < redis_client.pttl(lock_key(SERVING)) <= 10_000
    redis_client.pexpire(lock_key(SERVING), 500)  # the test does not wait for the rest
    rollback = RollbackOperator(task_id="rollback", day=str(DAY))
    assert task(rollback, version=live[1], reason="robots")["live"] is True
    check_agreement(storage, redis_client, live[1])


def check_agreement(storage: Storage, redis_client: redis.Redis, version: str) -> None:
    """Redis serves the version, the record says so, and nobody holds the lock."""
    state = read_deployment_state(storage)
    assert live_version(find_nodes(redis_client, SERVING)) == version
    assert (state["deployments"][-1]["version"], state["swapping"]) == (version, None)
    assert not redis_client.exists(lock_key(SERVING))
