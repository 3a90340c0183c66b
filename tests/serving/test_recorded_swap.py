"""What is live in Redis and what ``models/live.json`` records, after faults between the two."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis

from recsys_ops.errors import ServingError, StorageError
from recsys_ops.models.deployments import (
    Deployment,
    DeploymentState,
    HeldBackError,
    read_deployment_state,
    recorded_swap,
)
from recsys_ops.serving.layout import VersionLists
from recsys_ops.serving.publish import Record, publish
from recsys_ops.serving.status import describe_difference
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings
from recsys_ops.storage.objects import Storage

# test_publish.py tests the other servers
pytestmark = pytest.mark.parametrize("redis_url", ["redis 7"], indirect=True)


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/blob")


def recorded(storage: Storage, version: str) -> Record:
    deployment = Deployment(version=version, day="2026-06-30", reason="blessed", by=None)
    return partial(recorded_swap, storage, deployment, lambda state: None)


def names(state: DeploymentState) -> list[str]:
    return [deployment["version"] for deployment in state["deployments"]]


@contextmanager
def unwritable(storage: Storage) -> Iterator[None]:
    """The folder of ``live.json`` is gone, and another cannot be made."""
    folder = Path(storage.root.removeprefix("file://"))
    (folder / "models").rename(folder / "away")
    (folder / "models").touch()
    yield
    (folder / "models").unlink()
    (folder / "away").rename(folder / "models")


def test_where_the_record_cannot_be_written_nothing_is_swapped(
    live: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    folder: Storage,
) -> None:
    publish(live, settings, "v1", v1, recorded(folder, "v1"))
    with unwritable(folder), pytest.raises(StorageError, match=r"models/live\.json"):
        publish(live, settings, "v2", v2, recorded(folder, "v2"))

    assert RecommendationStore(live, settings).version() == "v1"
    assert names(read_deployment_state(folder)) == ["v1"]


def test_a_record_that_failed_after_the_swap_is_said_and_made_up_for(
    live: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    folder: Storage,
) -> None:
    publish(live, settings, "v1", v1, recorded(folder, "v1"))

    @contextmanager
    def storage_fails(versions: Collection[str | None]) -> Iterator[None]:
        with recorded(folder, "v2")(versions):
            yield
            failing.__enter__()

    failing = unwritable(folder)
    with pytest.raises(StorageError, match="v2 is live in Redis, but could not be recorded"):
        publish(live, settings, "v2", v2, storage_fails)
    failing.__exit__(None, None, None)

    assert RecommendationStore(live, settings).version() == "v2"
    state = read_deployment_state(folder)
    assert (names(state), state["swapping"]["version"]) == (["v1"], "v2")
    assert describe_difference({"v2"}, state).startswith(
        "v2 is live, but v1 is recorded, because the swap to v2 was cut short: clear refresh_redis"
    )
    publish(live, settings, "v2", v2, recorded(folder, "v2"))
    state = read_deployment_state(folder)
    assert (names(state), state["swapping"]) == (["v1", "v2"], None)
    assert describe_difference({"v2"}, state) is None


@pytest.mark.parametrize(("swapped", "expected"), [(True, ["v1", "v2", "v1"]), (False, ["v1"])])
def test_the_next_publisher_finds_whether_a_killed_one_had_swapped(
    live: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    folder: Storage,
    swapped: bool,
    expected: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(live, settings, "v1", v1, recorded(folder, "v1"))

    @contextmanager
    def killed(versions: Collection[str | None]) -> Iterator[None]:
        with recorded(folder, "v2")(versions):
            if swapped:
                yield
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(live, settings, "v2", v2, killed)
    publish(live, settings, "v1", v1, recorded(folder, "v1"))

    state = read_deployment_state(folder)
    assert (names(state), state["swapping"]) == (expected, None)
    assert ("v2 is live, but was not recorded: recorded now" in caplog.text) is swapped


def test_a_slow_publisher_does_not_record_over_a_later_one(
    live: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    folder: Storage,
) -> None:
    publish(live, settings, "v1", v1, recorded(folder, "v1"))

    @contextmanager
    def slow(versions: Collection[str | None]) -> Iterator[None]:
        with recorded(folder, "v2")(versions):
            yield
            live.delete("recsys:lock")  # its lease ends before the second half of the record
            publish(live, settings, "v1", v1, recorded(folder, "v1"))

    with pytest.raises(ServingError, match="v2 was live, and another version has been made live"):
        publish(live, settings, "v2", v2, slow)

    assert RecommendationStore(live, settings).version() == "v1"
    assert names(read_deployment_state(folder)) == ["v1", "v2", "v1"]


def test_what_is_blocked_while_it_is_staged_does_not_go_live(
    live: redis.Redis,
    settings: ServingSettings,
    v1: VersionLists,
    v2: VersionLists,
    folder: Storage,
) -> None:
    publish(live, settings, "v1", v1, recorded(folder, "v1"))

    def blocked(state: DeploymentState) -> None:
        raise HeldBackError(f"{names(state)[-1]} stays")

    deployment = Deployment(version="v2", day="2026-06-30", reason="blessed", by=None)
    with pytest.raises(HeldBackError, match="v1 stays"):
        publish(live, settings, "v2", v2, partial(recorded_swap, folder, deployment, blocked))

    assert RecommendationStore(live, settings).version() == "v1"
    assert read_deployment_state(folder)["swapping"] is None
    assert not live.exists("recsys:lock")


@pytest.mark.parametrize("content", ["[]", '{"deployments": [{}]}', '{"blocked": 1}'])
def test_a_damaged_record_is_named_and_nothing_is_swapped(
    live: redis.Redis, settings: ServingSettings, v2: VersionLists, folder: Storage, content: str
) -> None:
    folder.put("models/live.json", content.encode())
    with pytest.raises(StorageError, match=r"models/live\.json is damaged: restore it"):
        publish(live, settings, "v2", v2, recorded(folder, "v2"))
    assert RecommendationStore(live, settings).version() == "v1"
    assert describe_difference({"v1"}, {**read_deployment_state(Storage(folder.root + "x"))})
