import re
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_lists import lists_of, redis_7

from recsys_ops.demo import services
from recsys_ops.errors import ServingError
from recsys_ops.serving import publish as publishing
from recsys_ops.serving.layout import (
    VersionLists,
    bucket_of,
    encode_version,
    live_key,
    next_key,
    previous_key,
)
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import (
    free_redis_memory,
    live_version,
    previous_version,
    publish,
    stage_version,
    swap,
    swap_back,
    verify_buckets,
)
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings


@pytest.fixture
def live(redis_client: redis.Redis, settings: ServingSettings, v1: VersionLists) -> redis.Redis:
    """A Redis where v1 is live."""
    publish(redis_client, settings, "v1", v1)
    return redis_client


def dump(client: redis.Redis, settings: ServingSettings) -> list[dict[bytes, bytes]]:
    """Every live bucket as it is."""
    return [client.hgetall(live_key(settings, bucket)) for bucket in range(settings.buckets)]


def test_a_new_version_replaces_the_old_one_whole(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    published = publish(live, settings, "v2", v2)

    store = RecommendationStore(live, settings)
    users = [store.recommendations(user).items for user in ("ann", "bob", "cleo", "dave")]
    assert users == [["v2-top"], ["v2-b"], ["v2-c"], ["v2-d"]]
    assert [ask("v1-a").items for ask in (store.similar, store.bought_together)] == [
        ["v2-top"],
        ["v2-c"],
    ]
    assert [store.popular("cups").items, store.trending().items] == [["v2-cup"], ["v2-top"]]
    assert live_version(find_nodes(live, settings)) == "v2"
    assert (published.version, published.previous_version, published.users, published.lists) == (
        "v2",
        "v1",
        3,
        5,
    )
    assert published.bytes == sum(
        len(key) + len(value) for bucket in dump(live, settings) for key, value in bucket.items()
    )
    assert not live.keys("*:next")


def test_publishing_a_version_twice_changes_nothing(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    publish(live, settings, "v2", v2)
    before, keys = dump(live, settings), sorted(live.keys())

    again = publish(live, settings, "v2", v2)

    assert dump(live, settings) == before
    assert sorted(live.keys()) == keys
    assert again.previous_version == "v1"


def test_a_staged_version_is_invisible_until_the_swap(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before = dump(live, settings)
    content = encode_version(settings, "v2", v2)

    stage_version(find_nodes(live, settings), content)
    verify_buckets(find_nodes(live, settings), content)
    assert dump(live, settings) == before
    assert live_version(find_nodes(live, settings)) == "v1"

    swap(find_nodes(live, settings), "v2")
    swap(find_nodes(live, settings), "v2")
    assert live_version(find_nodes(live, settings)) == "v2"
    assert previous_version(find_nodes(live, settings)) == "v1"


def test_a_publisher_killed_between_two_buckets_is_finished_by_publishing_again(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    stage_version(find_nodes(live, settings), encode_version(settings, "v2", v2))
    for bucket in range(20):
        live.rename(live_key(settings, bucket), previous_key(settings, bucket))
        live.rename(next_key(settings, bucket), live_key(settings, bucket))
    with pytest.raises(
        ServingError, match=r"half swapped \(v1 in 44 buckets, v2 in 20 buckets of 64\): publish"
    ):
        live_version(find_nodes(live, settings))

    published = publish(live, settings, "v2", v2)

    assert live_version(find_nodes(live, settings)) == "v2"
    assert published.previous_version == "v1"
    assert not live.keys("*:next")


def test_what_a_dead_publisher_staged_does_not_leak_into_the_next_version(
    live: redis.Redis, settings: ServingSettings, v1: VersionLists, v2: VersionLists
) -> None:
    stage_version(find_nodes(live, settings), encode_version(settings, "v1b", v1))

    publish(live, settings, "v2", v2)

    assert RecommendationStore(live, settings).recommendations("ann").items == ["v2-top"]
    assert not live.keys("*:next")


@pytest.mark.parametrize(
    "damage", ["lost field", "extra field", "changed field", "other version", "lost bucket"]
)
def test_a_damaged_bucket_is_named_and_nothing_is_swapped(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists, damage: str
) -> None:
    before = dump(live, settings)
    content = encode_version(settings, "v2", v2)
    stage_version(find_nodes(live, settings), content)
    damaged = next_key(settings, bucket_of(settings, "dave"))
    match damage:
        case "lost field":
            live.hdel(damaged, "dave")
        case "extra field":
            live.hset(damaged, "eve", "x")
        case "changed field":
            live.hset(damaged, "dave", "x")
        case "other version":
            live.hset(damaged, "_version", "v3")
        case "lost bucket":
            live.delete(damaged)

    with pytest.raises(ServingError, match=re.escape(f"bucket {damaged} does not hold version v2")):
        verify_buckets(find_nodes(live, settings), content)

    assert dump(live, settings) == before


def test_a_bucket_lost_between_verify_and_swap_is_named_and_nothing_is_swapped(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    stage_version(find_nodes(live, settings), encode_version(settings, "v2", v2))
    live.delete(next_key(settings, bucket_of(settings, "bob")))

    before = dump(live, settings)

    with pytest.raises(
        ServingError, match=r"1 of 64 buckets have no version v2 .* publish v2 again"
    ):
        swap(find_nodes(live, settings), "v2")

    assert dump(live, settings) == before
    publish(live, settings, "v2", v2)
    assert RecommendationStore(live, settings).recommendations("bob").items == ["v2-b"]


def test_the_previous_version_can_be_put_back(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before = dump(live, settings)
    publish(live, settings, "v2", v2)

    swap_back(find_nodes(live, settings), "v1")
    swap_back(find_nodes(live, settings), "v1")

    assert dump(live, settings) == before
    assert live_version(find_nodes(live, settings)) == "v1"


def test_going_back_to_a_version_that_is_gone_changes_nothing(
    live: redis.Redis, settings: ServingSettings
) -> None:
    before = dump(live, settings)

    with pytest.raises(ServingError, match="64 of 64 buckets have no version v0"):
        swap_back(find_nodes(live, settings), "v0")

    assert dump(live, settings) == before


def test_before_the_first_publish_no_version_is_live(
    redis_client: redis.Redis, settings: ServingSettings
) -> None:
    assert live_version(find_nodes(redis_client, settings)) is None
    assert previous_version(find_nodes(redis_client, settings)) is None


def test_a_redis_out_of_memory_keeps_serving_what_it_served(
    live: redis.Redis, settings: ServingSettings
) -> None:
    before = dump(live, settings)
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

    assert dump(live, settings) == before
    assert not live.keys("*:next")


def test_a_read_only_replica_is_recognised(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before = dump(live, settings)
    live.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(
            ServingError, match="read-only replica; let the Redis connection point to the primary"
        ):
            publish(live, settings, "v2", v2)
        assert dump(live, settings) == before
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
    before, keys = dump(live, settings), sorted(live.keys())

    with pytest.raises(
        ServingError,
        match=r"layout text/64, serving.buckets is 32: give serving.prefix another name",
    ):
        publish(live, settings.model_copy(update={"buckets": 32}), "v2", v2)

    assert (dump(live, settings), sorted(live.keys())) == (before, keys)
    publish(live, settings.model_copy(update={"buckets": 32, "prefix": "other"}), "v2", v2)
    assert dump(live, settings) == before


def test_without_room_for_three_versions_the_previous_one_is_dropped_first_and_that_is_said(
    live: redis.Redis, settings: ServingSettings, caplog: pytest.LogCaptureFixture
) -> None:
    def version(number: int) -> VersionLists:
        return lists_of(
            {f"u{user}": [f"v{number}-{user}-{'x' * 100}"] * 5 for user in range(10_000)},
            [f"v{number}"],
        )

    publish(live, settings, "v2", version(2))
    publish(live, settings, "v3", version(3))
    used = live.info("memory")["used_memory"]
    live.config_set("maxmemory", used + 2_000_000)
    try:
        published = publish(live, settings, "v4", version(4))
    finally:
        live.config_set("maxmemory", 0)

    assert "the previous version is deleted first" in caplog.text
    assert RecommendationStore(live, settings).recommendations("u7").items[0].startswith("v4-7-")
    assert published.previous_version == "v3"
    assert live.info("memory")["used_memory"] < used + 2_000_000


@pytest.mark.parametrize("done", ["stage_version", "verify_buckets", "swap"])
def test_two_publishers_at_once_leave_one_version_in_every_bucket(
    redis_client: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    done: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second publishes from start to end when the first has staged, verified or swapped."""
    publish(redis_client, settings, "v0", v1)
    first = getattr(publishing, done)

    def then_the_second(*arguments: Any) -> None:
        first(*arguments)
        monkeypatch.setattr(publishing, done, first)
        publish(redis_client, settings, "v2", v2)

    monkeypatch.setattr(publishing, done, then_the_second)
    if done == "swap":
        publish(redis_client, settings, "v1", v1)
    else:
        with pytest.raises(ServingError, match=r"publish( v1)? again"):
            publish(redis_client, settings, "v1", v1)

    assert live_version(find_nodes(redis_client, settings)) == "v2"
    publish(redis_client, settings, "v1", v1)
    assert live_version(find_nodes(redis_client, settings)) == "v1"


@pytest.mark.parametrize("damage", ["lost field", "changed field", "lost bucket"])
def test_publishing_the_live_version_again_mends_it_and_keeps_the_previous_one(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists, damage: str
) -> None:
    publish(live, settings, "v2", v2)
    before, keys = dump(live, settings), sorted(live.keys())
    damaged = live_key(settings, bucket_of(settings, "dave"))
    match damage:
        case "lost field":
            live.hdel(damaged, "_popular")
        case "changed field":
            live.hset(damaged, "dave", "x")
        case "lost bucket":
            live.delete(damaged)

    published = publish(live, settings, "v2", v2)

    assert dump(live, settings) == before
    assert published.previous_version == "v1"
    assert sorted(live.keys()) == keys


def test_the_live_version_is_published_anew_in_another_encoding(
    live: redis.Redis, settings: ServingSettings
) -> None:
    numbers = lists_of({"ann": ["7", "8"]}, ["1"])
    publish(live, settings, "v2", numbers)

    published = publish(live, settings.model_copy(update={"encoding": "int32"}), "v2", numbers)

    assert len(dump(live, settings)[bucket_of(settings, "ann")][b"ann"]) == 8
    assert published.previous_version == "v1"


def test_a_second_try_counts_what_the_first_has_staged_as_free(
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


def test_a_server_that_would_throw_live_lists_away_for_new_ones_is_not_written_to(
    settings: ServingSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    big = lists_of({f"u{user}": ["x" * 200] * 5 for user in range(10_000)}, ["top"])
    with services.redis_server(tmp_path, program=redis_7()) as port:
        live = redis.Redis(port=port)
        publish(live, settings, "v2", big)
        before = dump(live, settings)
        live.config_set("maxmemory", live.info("memory")["used_memory"] + 7_000_000)
        live.config_set("maxmemory-policy", "allkeys-lru")

        with pytest.raises(
            ServingError,
            match=r"would evict live lists for them: raise maxmemory, set maxmemory-policy",
        ):
            publish(live, settings, "v3", big)

        assert dump(live, settings) == before
        assert not live.keys("*:next")
    assert "evicts lists when its memory is full" in caplog.text
