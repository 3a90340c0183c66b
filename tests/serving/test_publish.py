import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import redis

from recsys_ops.errors import ServingError
from recsys_ops.serving.layout import bucket_of, encode, live_key, next_key, previous_key
from recsys_ops.serving.publish import live_version, previous_version, publish, stage, swap, swap_back, verify
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings

from .processes import SETTINGS, USERS, publish_version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def v2() -> pl.DataFrame:
    """Version v2: ann is gone, dave is new."""
    return pl.DataFrame({"user_id": ["bob", "cleo", "dave"], "items": [["v2-b"], ["v2-c"], ["v2-d"]]})


@pytest.fixture
def live(redis_client: redis.Redis, settings: ServingSettings, recommendations: pl.DataFrame) -> redis.Redis:
    """A Redis where v1 is live."""
    publish(redis_client, settings, "v1", recommendations, ["v1-top"])
    return redis_client


def dump(client: redis.Redis, settings: ServingSettings) -> list[dict[bytes, bytes]]:
    """Every live bucket as it is."""
    return [client.hgetall(live_key(settings, bucket)) for bucket in range(settings.buckets)]


def test_a_new_version_replaces_the_old_one_whole(live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame) -> None:
    published = publish(live, settings, "v2", v2, ["v2-top"])

    store = RecommendationStore(live, settings)
    assert [store.get(user).items for user in ("ann", "bob", "cleo", "dave")] == [["v2-top"], ["v2-b"], ["v2-c"], ["v2-d"]]
    assert live_version(live, settings) == "v2"
    assert (published.version, published.previous_version, published.users) == ("v2", "v1", 3)
    assert published.bytes == sum(len(key) + len(value) for bucket in dump(live, settings) for key, value in bucket.items())
    assert not live.keys("*:next")


def test_publishing_a_version_twice_changes_nothing(live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame) -> None:
    publish(live, settings, "v2", v2, ["v2-top"])
    before, keys = dump(live, settings), sorted(live.keys())

    again = publish(live, settings, "v2", v2, ["v2-top"])

    assert dump(live, settings) == before
    assert sorted(live.keys()) == keys
    assert again.previous_version == "v1"


def test_a_staged_version_is_invisible_until_the_swap(live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame) -> None:
    before = dump(live, settings)
    content = encode(settings, "v2", v2, ["v2-top"])

    stage(live, settings, content)
    verify(live, settings, content)
    assert dump(live, settings) == before
    assert live_version(live, settings) == "v1"

    swap(live, settings, "v2")
    swap(live, settings, "v2")
    assert live_version(live, settings) == "v2"
    assert previous_version(live, settings) == "v1"


def test_a_publisher_killed_between_two_buckets_is_finished_by_publishing_again(
    live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame
) -> None:
    stage(live, settings, encode(settings, "v2", v2, ["v2-top"]))
    for bucket in range(20):
        live.rename(live_key(settings, bucket), previous_key(settings, bucket))
        live.rename(next_key(settings, bucket), live_key(settings, bucket))
    with pytest.raises(ServingError, match=r"half swapped \(v1 in 44 buckets, v2 in 20 buckets of 64\): publish"):
        live_version(live, settings)

    published = publish(live, settings, "v2", v2, ["v2-top"])

    assert live_version(live, settings) == "v2"
    assert published.previous_version == "v1"
    assert not live.keys("*:next")


def test_what_a_dead_publisher_staged_does_not_leak_into_the_next_version(
    live: redis.Redis, settings: ServingSettings, recommendations: pl.DataFrame, v2: pl.DataFrame
) -> None:
    stage(live, settings, encode(settings, "v1b", recommendations, ["v1b-top"]))

    publish(live, settings, "v2", v2, ["v2-top"])

    assert RecommendationStore(live, settings).get("ann").items == ["v2-top"]
    assert not live.keys("*:next")


@pytest.mark.parametrize("damage", ["lost field", "extra field", "changed field", "other version", "lost bucket"])
def test_a_damaged_bucket_is_named_and_nothing_is_swapped(
    live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame, damage: str
) -> None:
    before = dump(live, settings)
    content = encode(settings, "v2", v2, ["v2-top"])
    stage(live, settings, content)
    damaged = next_key(settings, bucket_of(settings, "dave"))
    match damage:
        case "lost field":
            live.hdel(damaged, "dave")
        case "extra field":
            live.hset(damaged, "eve", '["x"]')
        case "changed field":
            live.hset(damaged, "dave", '["x"]')
        case "other version":
            live.hset(damaged, "_version", "v3")
        case "lost bucket":
            live.delete(damaged)

    with pytest.raises(ServingError, match=f"bucket {damaged} is not what was written".replace("{", r"\{")):
        verify(live, settings, content)

    assert dump(live, settings) == before


def test_a_bucket_lost_between_verify_and_swap_keeps_its_old_version_and_is_named(
    live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame
) -> None:
    stage(live, settings, encode(settings, "v2", v2, ["v2-top"]))
    live.delete(next_key(settings, bucket_of(settings, "bob")))

    with pytest.raises(ServingError, match=r"1 of 64 buckets have no version v2 .* publish v2 again"):
        swap(live, settings, "v2")

    assert RecommendationStore(live, settings).get("bob").items == ["v1-b"]
    publish(live, settings, "v2", v2, ["v2-top"])
    assert RecommendationStore(live, settings).get("bob").items == ["v2-b"]


def test_the_previous_version_can_be_put_back(live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame) -> None:
    before = dump(live, settings)
    publish(live, settings, "v2", v2, ["v2-top"])

    swap_back(live, settings, "v1")
    swap_back(live, settings, "v1")

    assert dump(live, settings) == before
    assert live_version(live, settings) == "v1"


def test_going_back_to_a_version_that_is_gone_changes_nothing(live: redis.Redis, settings: ServingSettings) -> None:
    before = dump(live, settings)

    with pytest.raises(ServingError, match="64 of 64 buckets have no version v0"):
        swap_back(live, settings, "v0")

    assert dump(live, settings) == before


def test_before_the_first_publish_no_version_is_live(redis_client: redis.Redis, settings: ServingSettings) -> None:
    assert live_version(redis_client, settings) is None
    assert previous_version(redis_client, settings) is None


def test_a_redis_out_of_memory_keeps_serving_what_it_served(live: redis.Redis, settings: ServingSettings) -> None:
    before = dump(live, settings)
    big = pl.DataFrame({"user_id": [f"u{number}" for number in range(40_000)], "items": [["x" * 200] * 5] * 40_000})
    live.config_set("maxmemory", live.info("memory")["used_memory"] + 4_000_000)
    try:
        with pytest.raises(ServingError, match=r"staging version v2 failed on Redis 127.0.0.1:\d+: it has no memory left"):
            publish(live, settings, "v2", big, ["v2-top"])
    finally:
        live.config_set("maxmemory", 0)

    assert dump(live, settings) == before
    assert not live.keys("*:next")


def test_a_read_only_replica_is_recognised(live: redis.Redis, settings: ServingSettings, v2: pl.DataFrame) -> None:
    before = dump(live, settings)
    live.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(ServingError, match="read-only replica; let the Redis connection point to the primary"):
            publish(live, settings, "v2", v2, ["v2-top"])
        assert dump(live, settings) == before
    finally:
        live.execute_command("REPLICAOF", "NO", "ONE")


def test_a_wrong_password_is_recognised(
    redis_client: redis.Redis, redis_url: str, settings: ServingSettings, v2: pl.DataFrame
) -> None:
    redis_client.acl_setuser("shop", enabled=True, passwords=["+right"], categories=["+@all"], keys=["*"])
    try:
        with pytest.raises(ServingError, match="refuses the login; check user, password"):
            publish(redis.Redis.from_url(redis_url, username="shop", password="wrong"), settings, "v2", v2, ["v2-top"])
    finally:
        redis_client.acl_deluser("shop")


def test_an_unreachable_redis_is_recognised(settings: ServingSettings, v2: pl.DataFrame) -> None:
    with pytest.raises(ServingError, match="staging version v2 failed on Redis localhost:1: it cannot be reached in time"):
        publish(redis.Redis(port=1, retry=None), settings, "v2", v2, ["v2-top"])


@pytest.fixture
def reader(redis_client: redis.Redis, redis_url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that reads at full speed; v0 is live when it starts."""
    publish_version(redis_client, 0)
    process = start("read", redis_url)
    yield process
    process.kill()
    process.wait()


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.serving.processes", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]), "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_readers_see_nothing_missing_or_mixed_while_publishers_are_killed_at_any_moment(
    redis_client: redis.Redis, redis_url: str, reader: subprocess.Popen[str]
) -> None:
    chance = random.Random(2)
    for kill in range(5):
        first = 1 + 1000 * kill
        publisher = start("publish", redis_url, str(first))
        while redis_client.hget(live_key(SETTINGS, 0), "_version") != f"v{first}".encode():
            assert publisher.poll() is None
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.4))
        publisher.kill()
        publisher.wait()
        publish_version(redis_client, first + 500)
        assert live_version(redis_client, SETTINGS) == f"v{first + 500}"

    answer, _ = reader.communicate("stop")
    seen = json.loads(answer)
    assert seen["missing"] == seen["mixed"] == 0
    assert seen["reads"] > USERS
    assert seen["versions"] > 10
