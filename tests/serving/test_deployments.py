"""What ``models/live.json`` says after deployments, rollbacks and pins."""

from datetime import date, timedelta

from recsys_ops import paths
from recsys_ops.serving import deployments
from recsys_ops.storage import Storage

DAY = date(2026, 6, 30)


def deploy(storage: Storage, *days_ago: int) -> list[str]:
    """Put a version of each day live, in this order; returns them."""
    versions = [f"{DAY - timedelta(days=ago):%Y%m%d}-0000000000" for ago in days_ago]
    for version, ago in zip(versions, days_ago, strict=True):
        storage.put(paths.model(version, "manifest.json"), b"{}")
        deployments.record(storage, version, DAY - timedelta(days=ago), "blessed")
    return versions


def test_deployments_blocks_and_pins_leave_each_other_alone(storage: Storage) -> None:
    assert deployments.read_live(storage) == {"deployments": [], "blocked": {}, "pinned": []}
    first, second = deploy(storage, 2, 1)
    deployments.pin(storage, second)
    deployments.pin(storage, first)
    deployments.pin(storage, first)
    deployments.block(storage, [second], "rolled back")
    deployments.block(storage, [second], "another reason")
    deployments.record(storage, first, DAY - timedelta(days=2), "robots", "ann")
    deployments.record(storage, first, DAY - timedelta(days=2), "again", "bob")
    live = deployments.read_live(storage)
    assert [(d["version"], d["reason"], d["by"]) for d in live["deployments"]] == [
        (first, "blessed", None),
        (second, "blessed", None),
        (first, "robots", "ann"),
    ]
    assert (live["blocked"], live["pinned"]) == ({second: "rolled back"}, [first, second])

    deployments.release(storage, second)
    deployments.release(storage, second)
    deployments.unpin(storage, first)
    after = deployments.read_live(storage)
    assert after == {"deployments": live["deployments"], "blocked": {}, "pinned": [second]}


def test_after_a_rollback_the_next_day_is_measured_against_what_is_live(storage: Storage) -> None:
    older, newer = deploy(storage, 2, 1)
    assert deployments.champion(storage, DAY)["version"] == newer
    deployments.block(storage, [newer], "rolled back")
    deploy(storage, 2)
    assert deployments.champion(storage, DAY)["version"] == older
    assert deployments.champion(storage, DAY - timedelta(days=2)) is None


def test_the_reference_is_the_last_that_is_old_enough_still_there_and_was_not_rolled_back_from(storage: Storage) -> None:
    oldest, old, _ = deploy(storage, 40, 31, 29)
    assert deployments.reference(storage, DAY)["version"] == old
    deployments.block(storage, [old], "rolled back")
    assert deployments.reference(storage, DAY)["version"] == oldest
    storage.delete(paths.model(oldest, "manifest.json"))
    assert deployments.reference(storage, DAY) is None
    deployments.release(storage, old)
    assert deployments.reference(storage, DAY - timedelta(days=1))["version"] == old
    assert deployments.reference(storage, DAY - timedelta(days=2)) is None
