"""Publishing a version, step by step, and swapping back."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from support.redis_lists import lists_of, read_live_buckets

from recsys_ops.errors import ServingError
from recsys_ops.serving import lock
from recsys_ops.serving import publish as publishing
from recsys_ops.serving.layout import (
    VersionLists,
    bucket_of,
    encode_version,
    live_key,
    lock_key,
    next_key,
    previous_key,
)
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import (
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


def test_a_new_version_replaces_all_of_the_old_one(
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
        len(key) + len(value)
        for bucket in read_live_buckets(live, settings)
        for key, value in bucket.items()
    )
    assert not live.keys("*:next")


def test_publishing_a_version_twice_changes_nothing(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    publish(live, settings, "v2", v2)
    before, keys = read_live_buckets(live, settings), sorted(live.keys())

    again = publish(live, settings, "v2", v2)

    assert read_live_buckets(live, settings) == before
    assert sorted(live.keys()) == keys
    assert again.previous_version == "v1"


def test_a_staged_version_is_invisible_until_the_swap(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before = read_live_buckets(live, settings)
    content = encode_version(settings, "v2", v2)

    stage_version(find_nodes(live, settings), content)
    verify_buckets(find_nodes(live, settings), content)
    assert read_live_buckets(live, settings) == before
    assert live_version(find_nodes(live, settings)) == "v1"

    swap(find_nodes(live, settings), "v2")
    swap(find_nodes(live, settings), "v2")
    assert live_version(find_nodes(live, settings)) == "v2"
    assert previous_version(find_nodes(live, settings)) == "v1"


def test_publishing_again_finishes_a_swap_that_was_killed(
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


def test_staged_lists_of_a_dead_publisher_are_replaced(
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
    before = read_live_buckets(live, settings)
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

    assert read_live_buckets(live, settings) == before


def test_a_bucket_lost_after_verify_stops_the_swap(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    stage_version(find_nodes(live, settings), encode_version(settings, "v2", v2))
    live.delete(next_key(settings, bucket_of(settings, "bob")))

    before = read_live_buckets(live, settings)

    with pytest.raises(
        ServingError, match=r"1 of 64 buckets have no version v2 .* publish v2 again"
    ):
        swap(find_nodes(live, settings), "v2")

    assert read_live_buckets(live, settings) == before
    publish(live, settings, "v2", v2)
    assert RecommendationStore(live, settings).recommendations("bob").items == ["v2-b"]


def test_the_previous_version_can_be_swapped_back(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    before = read_live_buckets(live, settings)
    publish(live, settings, "v2", v2)

    swap_back(find_nodes(live, settings), "v1")
    swap_back(find_nodes(live, settings), "v1")

    assert read_live_buckets(live, settings) == before
    assert live_version(find_nodes(live, settings)) == "v1"


def test_swapping_back_to_a_missing_version_changes_nothing(
    live: redis.Redis, settings: ServingSettings
) -> None:
    before = read_live_buckets(live, settings)

    with pytest.raises(ServingError, match="64 of 64 buckets have no version v0"):
        swap_back(find_nodes(live, settings), "v0")

    assert read_live_buckets(live, settings) == before


def test_before_the_first_publish_no_version_is_live(
    redis_client: redis.Redis, settings: ServingSettings
) -> None:
    assert live_version(find_nodes(redis_client, settings)) is None
    assert previous_version(find_nodes(redis_client, settings)) is None


@pytest.mark.parametrize("done", ["stage_version", "verify_buckets", "swap"])
def test_two_publishers_at_once_leave_one_version_in_every_bucket(
    redis_client: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    done: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one publishes after the first has staged, verified or swapped."""
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


@pytest.mark.parametrize("lost", ["expired", "taken"])
def test_a_publisher_that_lost_the_lock_does_not_swap(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists, lost: str
) -> None:
    @contextmanager
    def slow(versions: Collection[str | None]) -> Iterator[None]:
        assert versions == {"v1"}
        live.delete(lock_key(settings))
        if lost == "taken":
            live.set(lock_key(settings), "v3 0123")
        yield

    before = read_live_buckets(live, settings)
    with pytest.raises(ServingError, match="recsys:lock was lost before the swap was complete"):
        publish(live, settings, "v2", v2, slow)

    assert read_live_buckets(live, settings) == before
    # nobody's lock but its own is released
    assert live.get(lock_key(settings)) == (b"v3 0123" if lost == "taken" else None)


def test_who_waits_in_vain_for_the_lock_reads_who_holds_it(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_WAIT_S", 0.2)
    live.set(lock_key(settings), "v3 0123")
    with pytest.raises(ServingError, match="recsys:lock is held by others, now to make v3 live"):
        publish(live, settings, "v2", v2)
    assert RecommendationStore(live, settings).version() == "v1"


@pytest.mark.parametrize("damage", ["lost field", "changed field", "lost bucket"])
def test_publishing_the_live_version_again_repairs_it(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists, damage: str
) -> None:
    publish(live, settings, "v2", v2)
    before, keys = read_live_buckets(live, settings), sorted(live.keys())
    damaged = live_key(settings, bucket_of(settings, "dave"))
    match damage:
        case "lost field":
            live.hdel(damaged, "_popular")
        case "changed field":
            live.hset(damaged, "dave", "x")
        case "lost bucket":
            live.delete(damaged)

    published = publish(live, settings, "v2", v2)

    assert read_live_buckets(live, settings) == before
    assert published.previous_version == "v1"
    assert sorted(live.keys()) == keys


def test_the_live_version_is_published_again_in_another_encoding(
    live: redis.Redis, settings: ServingSettings
) -> None:
    numbers = lists_of({"ann": ["7", "8"]}, ["1"])
    publish(live, settings, "v2", numbers)

    published = publish(live, settings.model_copy(update={"encoding": "int32"}), "v2", numbers)

    assert len(read_live_buckets(live, settings)[bucket_of(settings, "ann")][b"ann"]) == 8
    assert published.previous_version == "v1"
