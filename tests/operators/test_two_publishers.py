"""Refreshes and rollbacks at the same time: Redis and ``models/live.json`` say the same."""

# ruff: noqa: F811

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from support.jobs import DAY
from support.publisher import Publisher, publisher
from support.rollback import SERVING, Task, live, storage, task  # noqa: F401

from recsys_ops.models.deployments import read_deployment_state
from recsys_ops.serving.layout import live_key, lock_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import live_version
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

TESTS = Path(__file__).parents[1]


@pytest.fixture
def two(live: list[str]) -> Iterator[tuple[Publisher, Publisher]]:
    """Two processes that publish; three versions are live one after the other before."""
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "POLARS_MAX_THREADS": "1"}
    with ExitStack() as stack:
        yield (
            stack.enter_context(publisher(environment)),
            stack.enter_context(publisher(environment)),
        )


def test_a_rollback_beside_a_refresh_always_stays(
    two: tuple[Publisher, Publisher],
    live: list[str],
    storage: Storage,
    redis_client: redis.Redis,
) -> None:
    """The third version is published again, and meanwhile somebody rolls back from it."""
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
    for number in range(24):
        target = (first, second)[number % 2]
        delay = (seconds + before) * number / 24 - before
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


def test_two_refreshes_at_once_agree_on_what_is_live(
    two: tuple[Publisher, Publisher],
    live: list[str],
    storage: Storage,
    redis_client: redis.Redis,
) -> None:
    days = {version: DAY - timedelta(days=age) for age, version in enumerate(reversed(live))}
    for number in range(8):
        for process, version in zip(two, live[number % 2 :], strict=False):
            process.begin("refresh_redis", days[version], publish_reason="the catalogue")
            time.sleep(0.01 * (number // 2))
        for process in two:
            assert process.end()["live"] is True
        check_agreement(
            storage, redis_client, read_deployment_state(storage)["deployments"][-1]["version"]
        )


def test_a_killed_publisher_keeps_others_waiting_for_seconds_only(
    two: tuple[Publisher, Publisher],
    live: list[str],
    storage: Storage,
    redis_client: redis.Redis,
) -> None:
    refreshing, rolling_back = two
    with Path(storage.root.removeprefix("file://"), f"{paths.LIVE}#0").open("a") as record:
        fcntl.flock(record, fcntl.LOCK_EX)  # the publisher holds its lock and waits for this one
        refreshing.begin("refresh_redis", DAY)
        while not redis_client.exists(lock_key(SERVING)):
            time.sleep(0.001)
        refreshing.process.send_signal(signal.SIGKILL)
        refreshing.process.wait()
    assert 0 < redis_client.pttl(lock_key(SERVING)) <= 10_000
    redis_client.pexpire(lock_key(SERVING), 500)  # the test does not wait for the rest
    rolling_back.begin("rollback", DAY, version=live[1], reason="robots")
    assert rolling_back.end()["live"] is True
    check_agreement(storage, redis_client, live[1])


def check_agreement(storage: Storage, redis_client: redis.Redis, version: str) -> None:
    """Redis serves the version, the record says so, and nobody holds the lock."""
    state = read_deployment_state(storage)
    assert live_version(find_nodes(redis_client, SERVING)) == version
    assert (state["deployments"][-1]["version"], state["swapping"]) == (version, None)
    assert not redis_client.exists(lock_key(SERVING))
