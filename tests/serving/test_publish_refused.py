"""Publishing to a Redis that is full, unreachable, read-only, or of another layout."""

import time
from pathlib import Path

import pytest
import redis
from support.redis_lists import lists_of, read_live_buckets, redis_7

from recsys_ops.demo import services
from recsys_ops.errors import ServingError
from recsys_ops.serving.layout import (
    VersionLists,
    encode_version,
)
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import (
    free_redis_memory,
    previous_version,
    publish,
    stage_version,
    swap_back,
)
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings


def test_a_redis_out_of_memory_keeps_serving_what_it_served(
    live: redis.Redis, settings: ServingSettings
) -> None:
    before = read_live_buckets(live, settings)
    big = lists_of({f"u{number}": ["x" * 200] * 5 for number in range(40_000)}, ["v2-top"])
    live.config_set("maxmemory", live.info("memory")["used_memory"] + 4_000_000)
    try:
        with pytest.raises(
            ServingError,
            match=r"staging version v2 failed on Redis 127.0.0.1:\d+: it has no memory left",
        ):
            publish(live, settings, "v2", big)
    finally:
        live.config_set("maxmemory", 0)

    assert read_live_buckets(live, settings) == before
    assert not live.keys("*:next")


def test_a_full_redis_can_be_swapped_back(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    publish(live, settings, "v2", v2)
    live.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            live.set("other", 1)
        swap_back(find_nodes(live, settings), "v1")
    finally:
        live.config_set("maxmemory", 0)

    assert RecommendationStore(live, settings).version() == "v1"


def test_a_read_only_replica_is_recognised(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before = read_live_buckets(live, settings)
    live.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(
            ServingError, match="read-only replica; let the Redis connection point to the primary"
        ):
            publish(live, settings, "v2", v2)
        assert read_live_buckets(live, settings) == before
    finally:
        live.execute_command("REPLICAOF", "NO", "ONE")


def test_a_wrong_password_is_recognised(
    redis_client: redis.Redis, redis_url: str, settings: ServingSettings, v2: VersionLists
) -> None:
    redis_client.acl_setuser(
        "shop", enabled=True, passwords=["+right"], categories=["+@all"], keys=["*"]
    )
    try:
        with pytest.raises(ServingError, match="refuses the login; check user, password"):
            publish(
                redis.Redis.from_url(redis_url, username="shop", password="wrong"),
                settings,
                "v2",
                v2,
            )
    finally:
        redis_client.acl_deluser("shop")


def test_an_unreachable_redis_is_recognised(settings: ServingSettings, v2: VersionLists) -> None:
    with pytest.raises(
        ServingError, match="failed on Redis localhost:1: it cannot be reached in time"
    ):
        publish(redis.Redis(port=1, retry=None), settings, "v2", v2)


def test_another_number_of_buckets_under_the_same_prefix_is_refused(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before, keys = read_live_buckets(live, settings), sorted(live.keys())

    with pytest.raises(
        ServingError,
        match=r"layout text/64, serving.buckets is 32: give serving.prefix another name",
    ):
        publish(live, settings.model_copy(update={"buckets": 32}), "v2", v2)

    assert (read_live_buckets(live, settings), sorted(live.keys())) == (before, keys)
    publish(live, settings.model_copy(update={"buckets": 32, "prefix": "other"}), "v2", v2)
    assert read_live_buckets(live, settings) == before


def settled_memory(live: redis.Redis) -> int:
    """The used memory after Redis has freed what was deleted, and its buffers."""
    before, now = 0, live.info("memory")["used_memory"]
    while abs(now - before) > 100_000:
        time.sleep(0.5)
        before, now = now, live.info("memory")["used_memory"]
    return now


def test_without_memory_for_three_versions_the_previous_is_deleted_first(
    live: redis.Redis, settings: ServingSettings, caplog: pytest.LogCaptureFixture
) -> None:
    def version(number: int) -> VersionLists:
        return lists_of(
            {f"u{user}": [f"v{number}-{user}-{'x' * 100}"] * 5 for user in range(10_000)},
            [f"v{number}"],
        )

    publish(live, settings, "v2", version(2))
    publish(live, settings, "v3", version(3))
    used = settled_memory(live)
    live.config_set("maxmemory", used + 2_000_000)
    try:
        published = publish(live, settings, "v4", version(4))
    finally:
        live.config_set("maxmemory", 0)

    assert "the previous version is deleted first" in caplog.text
    assert RecommendationStore(live, settings).recommendations("u7").items[0].startswith("v4-7-")
    assert published.previous_version == "v3"
    assert live.info("memory")["used_memory"] < used + 2_000_000


def test_a_second_attempt_counts_what_the_first_staged_as_free(
    live: redis.Redis, settings: ServingSettings, caplog: pytest.LogCaptureFixture
) -> None:
    big = lists_of({f"u{user}": ["x" * 200] * 5 for user in range(10_000)}, ["top"])
    publish(live, settings, "v2", big)
    publish(live, settings, "v3", big)
    content = encode_version(settings, "v4", big)
    stage_version(find_nodes(live, settings), content)
    live.config_set("maxmemory", live.info("memory")["used_memory"] + 2_000_000)
    try:
        free_redis_memory(find_nodes(live, settings), content)
        stage_version(find_nodes(live, settings), content)
    finally:
        live.config_set("maxmemory", 0)

    assert "deleted" not in caplog.text
    assert previous_version(find_nodes(live, settings)) == "v2"


def test_a_server_that_would_evict_live_lists_is_not_written_to(
    settings: ServingSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    big = lists_of({f"u{user}": ["x" * 200] * 5 for user in range(10_000)}, ["top"])
    with services.redis_server(tmp_path, program=redis_7()) as port:
        live = redis.Redis(port=port)
        publish(live, settings, "v2", big)
        before = read_live_buckets(live, settings)
        live.config_set("maxmemory", live.info("memory")["used_memory"] + 7_000_000)
        live.config_set("maxmemory-policy", "allkeys-lru")

        with pytest.raises(
            ServingError,
            match=r"would evict live lists for them: raise maxmemory, set maxmemory-policy",
        ):
            publish(live, settings, "v3", big)

        assert read_live_buckets(live, settings) == before
        assert not live.keys("*:next")
    assert "evicts lists when its memory is full" in caplog.text
