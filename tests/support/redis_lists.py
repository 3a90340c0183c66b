"""Lists typed by hand, and the Redis server of the system."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys_ops.serving.layout import VersionLists
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
    """What a version shows, typed by hand."""
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
    """Debian's server, with TLS; installed where the suite may do that."""
    # a program of that package alone: the virtual environment has a redis-server too
    found = install("redis-check-aof", "redis-server")
    if found is None:
        pytest.skip("there is no Redis of the system here: install its package redis-server")
    return str(Path(found).with_name("redis-server"))


def with_users(lists: VersionLists, users: Items) -> VersionLists:
    return replace(lists, users=frame(users))
