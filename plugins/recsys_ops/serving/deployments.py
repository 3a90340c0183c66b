"""Which versions went live, oldest first: ``models/live.json``, the champion's address for the next day's training."""

from datetime import date
from typing import Any, TypedDict

from recsys_ops import paths
from recsys_ops.storage import Storage


class Deployment(TypedDict):
    version: str
    day: str
    reason: str


def deployments(storage: Storage) -> list[Deployment]:
    """Every deployment, oldest first; empty before the first."""
    return list(storage.read_json(paths.LIVE)["deployments"]) if storage.exists(paths.LIVE) else []


def champion(storage: Storage, day: date) -> Deployment | None:
    """The last deployed version that has not seen `day`: what a challenger of that day is measured against."""
    return next((d for d in reversed(deployments(storage)) if date.fromisoformat(d["day"]) < day), None)


def record(storage: Storage, version: str, day: date, reason: str) -> None:
    """Note that a version is live now; noting the live one again changes nothing."""
    past = deployments(storage)
    if not past or past[-1]["version"] != version:
        value: dict[str, Any] = {"deployments": [*past, Deployment(version=version, day=str(day), reason=reason)]}
        storage.write_json(paths.LIVE, value)
