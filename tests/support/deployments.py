"""Deployments without a Redis."""

from collections.abc import Sequence
from datetime import date

from recsys_ops.models.deployments import (
    Deployment,
    DeploymentState,
    block_versions,
    list_deployments,
    recorded_swap,
)
from recsys_ops.storage.objects import Storage


def went_live(
    storage: Storage, version: str, day: date, reason: str = "blessed", by: str | None = None
) -> None:
    """Record a swap to a version."""
    _swap(storage, Deployment(version=version, day=str(day), reason=reason, by=by))


def block(storage: Storage, versions: list[str], reason: str) -> None:
    """Block versions; the same one stays live."""
    _swap(storage, list_deployments(storage)[-1], versions, reason)


def _swap(
    storage: Storage, deployment: Deployment, blocked: Sequence[str] = (), reason: str = ""
) -> None:
    live = {last["version"] for last in list_deployments(storage)[-1:]} or {None}

    def prepare(state: DeploymentState) -> None:
        block_versions(state, blocked, reason)

    with recorded_swap(storage, deployment, prepare, live):
        pass
