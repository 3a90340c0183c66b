"""The content of ``models/live.json`` after deployments, rollbacks and pins."""

from datetime import date, timedelta

from support.deployments import block, went_live

from recsys_ops.models.deployments import (
    champion_deployment,
    pin_version,
    read_deployment_state,
    reference_deployment,
    release_version,
    unpin_version,
)
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

DAY = date(2026, 6, 30)


def deploy(storage: Storage, *days_ago: int) -> list[str]:
    """Record a version of each of these days as live, in this order; returns the versions."""
    versions = [f"{DAY - timedelta(days=ago):%Y%m%d}-0000000000" for ago in days_ago]
    for version, ago in zip(versions, days_ago, strict=True):
        storage.put(paths.model(version, "manifest.json"), b"{}")
        went_live(storage, version, DAY - timedelta(days=ago), "blessed")
    return versions


def test_deployments_blocks_and_pins_leave_each_other_alone(storage: Storage) -> None:
    assert read_deployment_state(storage) == {
        "deployments": [],
        "swapping": None,
        "blocked": {},
        "pinned": [],
    }
    first, second = deploy(storage, 2, 1)
    pin_version(storage, second)
    pin_version(storage, first)
    pin_version(storage, first)
    block(storage, [second], "rolled back")
    block(storage, [second], "another reason")
    went_live(storage, first, DAY - timedelta(days=2), "robots", "ann")
    went_live(storage, first, DAY - timedelta(days=2), "again", "bob")
    live = read_deployment_state(storage)
    assert [(d["version"], d["reason"], d["by"]) for d in live["deployments"]] == [
        (first, "blessed", None),
        (second, "blessed", None),
        (first, "robots", "ann"),
    ]
    assert (live["blocked"], live["pinned"]) == ({second: "rolled back"}, [first, second])

    release_version(storage, second)
    release_version(storage, second)
    unpin_version(storage, first)
    after = read_deployment_state(storage)
    assert after == live | {"blocked": {}, "pinned": [second]}


def test_after_a_rollback_the_next_day_is_compared_with_the_live_version(storage: Storage) -> None:
    older, newer = deploy(storage, 2, 1)
    assert champion_deployment(storage, DAY)["version"] == newer
    block(storage, [newer], "rolled back")
    deploy(storage, 2)
    assert champion_deployment(storage, DAY)["version"] == older
    assert champion_deployment(storage, DAY - timedelta(days=2)) is None


def test_the_reference_is_the_last_old_version_that_exists_unblocked(
    storage: Storage,
) -> None:
    oldest, old, _ = deploy(storage, 40, 31, 29)
    assert reference_deployment(storage, DAY)["version"] == old
    block(storage, [old], "rolled back")
    assert reference_deployment(storage, DAY)["version"] == oldest
    storage.delete(paths.model(oldest, "manifest.json"))
    assert reference_deployment(storage, DAY) is None
    release_version(storage, old)
    assert reference_deployment(storage, DAY - timedelta(days=1))["version"] == old
    assert reference_deployment(storage, DAY - timedelta(days=2)) is None
