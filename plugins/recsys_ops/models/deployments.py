"""Which versions went live, which are blocked and which are pinned: ``models/live.json``.

The file is read, changed and written as a whole, without a lock: Azure could refuse a second
writer, a local folder could not. If two write at the same moment, the later one wins. The writers
are the end of a retraining, of which one runs at a time, and a person: a rollback, a pin, a
release.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import TypedDict

from recsys_ops.models import files
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

REFERENCE_AGE = timedelta(days=30)


class Deployment(TypedDict):
    """The record that a version went live.

    day : the last day that the version has learned from
    by : the Airflow user who asked for it; None for a scheduled run
    """

    version: str
    day: str
    reason: str
    by: str | None


class DeploymentState(TypedDict):
    """The content of ``models/live.json``.

    deployments : oldest first; the last one is live
    blocked : by version the reason
    pinned : versions that never expire
    """

    deployments: list[Deployment]
    blocked: dict[str, str]
    pinned: list[str]


def read_deployment_state(storage: Storage) -> DeploymentState:
    """The deployments, blocks and pins; empty before the first deployment."""
    state = storage.read_json(paths.LIVE) if storage.exists(paths.LIVE) else {}
    return DeploymentState(
        deployments=state.get("deployments", []),
        blocked=state.get("blocked", {}),
        pinned=sorted(state.get("pinned", [])),
    )


def list_deployments(storage: Storage) -> list[Deployment]:
    """Every deployment, oldest first; empty before the first."""
    return read_deployment_state(storage)["deployments"]


def champion_deployment(storage: Storage, day: date) -> Deployment | None:
    """The last deployment whose version has not learned from `day`.

    A challenger of that day is compared with it.
    """
    return next(
        (
            deployment
            for deployment in reversed(list_deployments(storage))
            if date.fromisoformat(deployment["day"]) < day
        ),
        None,
    )


def reference_deployment(storage: Storage, day: date) -> Deployment | None:
    """The last deployment that is at least `REFERENCE_AGE` older than `day`.

    Its version must still exist and not be blocked. A comparison with it shows many small losses
    that each stay within the gate's limits.
    """
    state = read_deployment_state(storage)

    def is_reference(deployment: Deployment) -> bool:
        version = deployment["version"]
        return (
            date.fromisoformat(deployment["day"]) <= day - REFERENCE_AGE
            and version not in state["blocked"]
            and storage.exists(paths.model(version, files.MANIFEST))
        )

    return next(filter(is_reference, reversed(state["deployments"])), None)


def record_deployment(
    storage: Storage, version: str, day: date, reason: str, by: str | None = None
) -> None:
    """Record that a version is live now. To record the live version again changes nothing."""
    state = read_deployment_state(storage)
    past = state["deployments"]
    if not past or past[-1]["version"] != version:
        past.append(Deployment(version=version, day=str(day), reason=reason, by=by))
        storage.write_json(paths.LIVE, state)


def block_versions(storage: Storage, versions: Iterable[str], reason: str) -> None:
    """Block versions: no run puts them live until they are released.

    A version that is blocked already keeps its reason.
    """
    state = read_deployment_state(storage)
    state["blocked"] = dict.fromkeys(versions, reason) | state["blocked"]
    storage.write_json(paths.LIVE, state)


def release_version(storage: Storage, version: str) -> None:
    """Remove the block of a version; does nothing if it is not blocked."""
    state = read_deployment_state(storage)
    if state["blocked"].pop(version, None) is not None:
        storage.write_json(paths.LIVE, state)


def pin_version(storage: Storage, version: str) -> None:
    """Keep a version from expiring."""
    state = read_deployment_state(storage)
    state["pinned"] = sorted({*state["pinned"], version})
    storage.write_json(paths.LIVE, state)


def unpin_version(storage: Storage, version: str) -> None:
    """Let a version expire like any other."""
    state = read_deployment_state(storage)
    state["pinned"] = [pinned for pinned in state["pinned"] if pinned != version]
    storage.write_json(paths.LIVE, state)
