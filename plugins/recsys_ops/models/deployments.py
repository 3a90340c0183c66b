"""Which versions went live, which are blocked and which are pinned: ``models/live.json``.

The file is read, changed and written as a whole, and of two writers neither is lost (see
`Storage.update_json`). What is live is what Redis holds. So that both cannot disagree unnoticed, a
swap is recorded in two steps, see `recorded_swap`.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from recsys_ops.errors import DamagedError, ServingError, StorageError
from recsys_ops.models import files
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

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
    swapping : the deployment whose swap is under way, or ended without being recorded
    blocked : by version the reason
    pinned : versions that never expire
    """

    deployments: list[Deployment]
    swapping: Deployment | None
    blocked: dict[str, str]
    pinned: list[str]


_STATE = TypeAdapter(DeploymentState)


class HeldBackError(Exception):
    """A version must not go live now; the message says why."""


def read_deployment_state(storage: Storage) -> DeploymentState:
    """The deployments, blocks and pins; empty before the first deployment.

    Raises DamagedError.
    """
    content = storage.read_json(paths.LIVE) if storage.exists(paths.LIVE) else None
    return _parse_state(storage, content)


def _parse_state(storage: Storage, content: Any) -> DeploymentState:
    empty = DeploymentState(deployments=[], swapping=None, blocked={}, pinned=[])
    if content is None:
        return empty
    try:
        state = _STATE.validate_python(empty | content)
    except (ValidationError, TypeError) as error:
        raise DamagedError(
            f"{storage.url(paths.LIVE)} is damaged: restore it from a backup; without it no "
            "version counts as live, blocked or pinned"
        ) from error
    state["pinned"] = sorted(state["pinned"])
    return state


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


@contextmanager
def recorded_swap(
    storage: Storage,
    deployment: Deployment,
    prepare: Callable[[DeploymentState], None],
    live: Collection[str | None],
) -> Iterator[None]:
    """Record a swap, which is the body of the ``with`` and runs under the lock of publishing.

    Before it the deployment is written as `swapping`: where that is not possible, nothing is
    swapped. After it the deployment is appended. Where a publisher died or storage failed between
    the two, the next one finds it as `swapping`, and looks into Redis for whether it went live.

    prepare : changes the newest state right before the swap, or raises HeldBackError
    live : the versions that Redis holds; two where an earlier swap broke off

    Raises StorageError, and ServingError where another publisher was faster.
    """
    version = deployment["version"]

    def begin(state: DeploymentState) -> None:
        unfinished = state["swapping"]
        if unfinished and unfinished["version"] in live:
            log.warning("%s is live, but was not recorded: recorded now", unfinished["version"])
            _append(state, unfinished)
        prepare(state)
        recorded = bool(state["deployments"]) and state["deployments"][-1]["version"] == version
        state["swapping"] = None if recorded and {*live} == {version} else deployment

    def finish(state: DeploymentState) -> None:
        if state["swapping"] and state["swapping"]["version"] == version:
            _append(state, state["swapping"])
            state["swapping"] = None
        elif [last["version"] for last in state["deployments"][-1:]] != [version]:
            raise ServingError(
                f"{version} was live, and another version has been made live since: "
                "recsys_ops redis status shows what is live"
            )

    _change_state(storage, begin)
    yield
    try:
        _change_state(storage, finish)
    except StorageError as error:
        raise StorageError(
            f"{version} is live in Redis, but could not be recorded: {error}. Run this again when "
            "storage can be written; until then recsys_ops redis status shows what is live"
        ) from error


def _append(state: DeploymentState, deployment: Deployment) -> None:
    past = state["deployments"]
    if not past or past[-1]["version"] != deployment["version"]:
        past.append(deployment)


def block_versions(state: DeploymentState, versions: Iterable[str], reason: str) -> None:
    """Block versions: no run puts them live until they are released.

    A version that is blocked already keeps its reason.
    """
    state["blocked"] = dict.fromkeys(versions, reason) | state["blocked"]


def release_version(storage: Storage, version: str) -> None:
    """Remove the block of a version; does nothing if it is not blocked."""
    _change_state(storage, lambda state: state["blocked"].pop(version, None))


def pin_version(storage: Storage, version: str) -> None:
    """Keep a version from expiring."""

    def pin(state: DeploymentState) -> None:
        state["pinned"] = sorted({*state["pinned"], version})

    _change_state(storage, pin)


def unpin_version(storage: Storage, version: str) -> None:
    """Let a version expire like any other."""

    def unpin(state: DeploymentState) -> None:
        state["pinned"] = [pinned for pinned in state["pinned"] if pinned != version]

    _change_state(storage, unpin)


def _change_state(storage: Storage, change: Callable[[DeploymentState], object]) -> None:
    """change : it may be called several times, also with what it has changed already"""

    def changed(content: Any) -> DeploymentState:
        state = _parse_state(storage, content)
        change(state)
        return state

    storage.update_json(paths.LIVE, changed)
