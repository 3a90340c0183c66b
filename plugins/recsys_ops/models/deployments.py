"""Which versions went live, oldest first, which may not again by themselves, and which are kept: ``models/live.json``.

It is read, changed and written whole. Nobody is kept out meanwhile (Azure could refuse the second writer, a folder could not), so
of two writers at the same moment the later one's word stands. They are the end of a retraining, one at a time, and a person: a
rollback, a pin, a release.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import TypedDict

from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

REFERENCE_AGE = timedelta(days=30)


class Deployment(TypedDict):
    """day : the last that the version has learnt from · by : the Airflow user who wanted it, None for a night's own."""

    version: str
    day: str
    reason: str
    by: str | None


class DeploymentState(TypedDict):
    """deployments : oldest first; the last is live · blocked : why, by version · pinned : what never expires."""

    deployments: list[Deployment]
    blocked: dict[str, str]
    pinned: list[str]


def read_deployment_state(storage: Storage) -> DeploymentState:
    """All that is noted; empty before the first deployment."""
    found = storage.read_json(paths.LIVE) if storage.exists(paths.LIVE) else {}
    return DeploymentState(
        deployments=found.get("deployments", []),
        blocked=found.get("blocked", {}),
        pinned=sorted(found.get("pinned", [])),
    )


def list_deployments(storage: Storage) -> list[Deployment]:
    """Every deployment, oldest first; empty before the first."""
    return read_deployment_state(storage)["deployments"]


def champion_deployment(storage: Storage, day: date) -> Deployment | None:
    """The last deployed version that has not seen `day`: what a challenger of that day is measured against."""
    return next(
        (d for d in reversed(list_deployments(storage)) if date.fromisoformat(d["day"]) < day), None
    )


def reference_deployment(storage: Storage, day: date) -> Deployment | None:
    """The last deployed version at least `REFERENCE_AGE` older than `day` that is still there and was not rolled back from.

    Many small losses, each of them within the gate's bounds, show against it.
    """
    live = read_deployment_state(storage)

    def fit(deployment: Deployment) -> bool:
        version, is_old = (
            deployment["version"],
            date.fromisoformat(deployment["day"]) <= day - REFERENCE_AGE,
        )
        return (
            is_old
            and version not in live["blocked"]
            and storage.exists(paths.model(version, "manifest.json"))
        )

    return next(
        (deployment for deployment in reversed(live["deployments"]) if fit(deployment)), None
    )


def record_deployment(
    storage: Storage, version: str, day: date, reason: str, by: str | None = None
) -> None:
    """Note that a version is live now; noting the live one again changes nothing."""
    live = read_deployment_state(storage)
    past = live["deployments"]
    if not past or past[-1]["version"] != version:
        past.append(Deployment(version=version, day=str(day), reason=reason, by=by))
        storage.write_json(paths.LIVE, live)


def block_versions(storage: Storage, versions: Iterable[str], reason: str) -> None:
    """Let no run put versions live by itself until they are released; one that is blocked already keeps its reason."""
    live = read_deployment_state(storage)
    live["blocked"] = dict.fromkeys(versions, reason) | live["blocked"]
    storage.write_json(paths.LIVE, live)


def release_version(storage: Storage, version: str) -> None:
    """Take a block back; without one nothing changes."""
    live = read_deployment_state(storage)
    if live["blocked"].pop(version, None) is not None:
        storage.write_json(paths.LIVE, live)


def pin_version(storage: Storage, version: str) -> None:
    """Keep a version for good."""
    live = read_deployment_state(storage)
    storage.write_json(paths.LIVE, live | {"pinned": sorted({*live["pinned"], version})})


def unpin_version(storage: Storage, version: str) -> None:
    """Let a version expire like the others."""
    live = read_deployment_state(storage)
    storage.write_json(
        paths.LIVE, live | {"pinned": [pinned for pinned in live["pinned"] if pinned != version]}
    )
