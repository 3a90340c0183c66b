"""The model versions in storage: list, describe, compare and expire them."""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from recsys_ops.errors import DamagedError, ModelError, StorageError
from recsys_ops.models.deployments import (
    REFERENCE_AGE,
    DeploymentState,
    list_deployments,
    read_deployment_state,
    reference_deployment,
)
from recsys_ops.models.files import MANIFEST, METRICS, SPEC, VERDICT
from recsys_ops.models.version import Manifest, load_manifest, read_frame
from recsys_ops.settings import ModelsSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

# these files explain a decision and never expire: a few kilobytes without personal data
KEPT_FILES = frozenset({METRICS, VERDICT})
# an error message names at most this many versions
_NAMED = 10


def existing_versions(storage: Storage) -> dict[str, dict[str, datetime]]:
    """The files of every version that has not expired, each with its time of writing.

    Newest version first. An expired version has only its `KEPT_FILES` files.
    """
    return {
        version: written
        for version, written in _written_files(storage).items()
        if written.keys() - KEPT_FILES
    }


def check_exists(storage: Storage, version: str) -> dict[str, datetime]:
    """The files of a version, also of an expired one, each with its time of writing.

    Raises ModelError that names the finished versions if there is no such version.
    """
    versions = _written_files(storage)
    if version not in versions:
        finished = [name for name, written in versions.items() if MANIFEST in written]
        more = f" and {len(finished) - _NAMED} older ones" if len(finished) > _NAMED else ""
        raise ModelError(
            f"there is no model version {version}; "
            f"there are {', '.join(finished[:_NAMED]) or 'none'}{more}"
        )
    return versions[version]


def check_finished(storage: Storage, version: str) -> Manifest:
    """The manifest of a version.

    Raises ModelError if the version does not exist, is unfinished, damaged or expired.
    """
    check_exists(storage, version)
    return load_manifest(storage, version)


def version_day(version: str) -> date:
    """The day that a version's name begins with, which is the day in its manifest."""
    return date(int(version[:4]), int(version[4:6]), int(version[6:8]))


def rollback_targets(storage: Storage) -> list[str]:
    """The finished versions that are blessed or forced, newest first, without the live one.

    A version with a damaged verdict is left out, and named in the log.
    """
    live = [deployment["version"] for deployment in list_deployments(storage)[-1:]]
    return [
        version
        for version, written in existing_versions(storage).items()
        if {MANIFEST, VERDICT} <= written.keys()
        and version not in live
        and _verdict_word(_read_kept(storage, version, written)["verdict"]) in ("blessed", "forced")
    ]


def list_versions(storage: Storage, last: int, today: date) -> list[dict[str, Any]]:
    """A row for each of the `last` newest versions, newest first."""
    marks = _marks(read_deployment_state(storage))
    rows = []
    for version, written in list(existing_versions(storage).items())[:last]:
        state, manifest = _read_state(storage, version, written)
        decision = _read_kept(storage, version, written)
        rows.append(
            {
                "version": version,
                "day": version_day(version),
                "age_days": (today - version_day(version)).days,
                "verdict": _verdict_word(decision["verdict"]) if state == "finished" else state,
                "ndcg": _ndcg(decision["metrics"], "challenger"),
                "champion_ndcg": _ndcg(decision["metrics"], "champion"),
                "is": marks.get(version, []),
                "started_from": manifest and manifest.started_from,
                "bytes": manifest and sum(file.bytes for file in manifest.files.values()),
            }
        )
    return rows


def describe_version(storage: Storage, version: str) -> dict[str, Any]:
    """Everything that is stored about a version, ready for JSON.

    The keys are version, state, is, manifest, metrics, verdict, deployments and blocked. Manifest,
    metrics and verdict are None where they are missing. Raises ModelError if there is no such
    version.
    """
    written = check_exists(storage, version)
    deployment_state = read_deployment_state(storage)
    state, manifest = _read_state(storage, version, written)
    return {
        "version": version,
        "state": state,
        "is": _marks(deployment_state).get(version, []),
        "manifest": manifest and manifest.model_dump(mode="json"),
        **_read_kept(storage, version, written),
        "deployments": [
            deployment
            for deployment in deployment_state["deployments"]
            if deployment["version"] == version
        ],
        "blocked": deployment_state["blocked"].get(version),
    }


def compare_versions(storage: Storage, one: str, other: str) -> dict[str, Any]:
    """What differs between two finished versions.

    Returns
    made_of : a pair by name for the settings, data, code and packages that differ
    metrics : a pair by name for the metrics that both have
    overlap : the mean of `list_overlap`
    overlap_users : the number of users with a list in both

    Raises ModelError if a version does not exist or is not finished.
    """
    versions = (one, other)
    manifests = [check_finished(storage, version) for version in versions]
    parts = [_made_of(manifest) for manifest in manifests]
    metrics = [_challenger_metrics(storage, version) for version in versions]
    lists = [read_frame(storage, manifest, "recommendations") for manifest in manifests]
    overlap = list_overlap(*lists)
    return {
        "made_of": {
            name: (parts[0].get(name), parts[1].get(name))
            for name in sorted({*parts[0], *parts[1]})
            if parts[0].get(name) != parts[1].get(name)
        },
        "metrics": {
            name: (value, metrics[1][name])
            for name, value in metrics[0].items()
            if name in metrics[1]
        },
        "overlap": overlap.mean(),
        "overlap_users": len(overlap),
    }


def list_overlap(one: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """For each user with a list in both: common items / length of the longer list, Float64.

    one, other : user_id String, items List[String]
    """
    both = one.select("user_id", "items").join(
        other.select("user_id", other_items="items"), on="user_id"
    )
    items, other_items = pl.col("items").list, pl.col("other_items").list
    common = items.set_intersection("other_items").list.len()
    longer = pl.max_horizontal(items.len(), other_items.len())
    return both.select(overlap=common / longer)["overlap"]


def expire_versions(
    storage: Storage, day: date, written: datetime, settings: ModelsSettings
) -> tuple[int, list[str]]:
    """Delete the versions that are both too old and not among the newest, except for
    their `KEPT_FILES`.

    These stay: the live version, the one before it, a pinned one, one that the gate compares with,
    one that an unfinished job needs, and one with a file written at `written` or later. A version
    without a manifest does not count among the newest. The manifest is deleted first: after a kill
    the rest is an unfinished version, which the next call deletes.

    day : the run's; ages are counted back from it

    Returns the number of deleted versions, and what was in the way: damaged job specs, which may
    have named a version that is needed, and versions that could not be deleted.
    """
    versions = existing_versions(storage)
    oldest = day - timedelta(days=settings.keep_days)
    finished = [version for version, files in versions.items() if MANIFEST in files]
    newest = finished[: settings.keep_newest]
    old = {
        version
        for version, files in versions.items()
        if version_day(version) < oldest and version not in newest and max(files.values()) < written
    }
    if not old:
        return 0, []
    needed, problems = _needed(storage, versions, day)
    deleted = 0
    for version in sorted(old - needed):
        names = versions[version].keys() - KEPT_FILES
        try:
            for name in sorted(names, key=lambda name: name != MANIFEST):
                storage.delete(paths.model(version, name))
            deleted += 1
        except StorageError as error:
            problems.append(str(error))
    return deleted, problems


def _written_files(storage: Storage) -> dict[str, dict[str, datetime]]:
    """The files of every version with their times of writing, newest version first.

    Any other file below ``models/`` is ignored.
    """
    versions: dict[str, dict[str, datetime]] = {}
    for path, written in storage.write_times("models").items():
        if match := re.fullmatch(r"models/(\d{8}-[0-9a-f]{10})/(.+)", path):
            with suppress(ValueError):  # its name begins with no date, such as 20260230
                version_day(match[1])
                versions.setdefault(match[1], {})[match[2]] = written
    newest_first = sorted(
        versions, key=lambda version: (version[:8], max(versions[version].values())), reverse=True
    )
    return {version: versions[version] for version in newest_first}


def _needed(
    storage: Storage, versions: Mapping[str, Mapping[str, datetime]], day: date
) -> tuple[set[str | None], list[str]]:
    """The versions that are in use or may still be asked for, and which job specs are damaged."""
    state = read_deployment_state(storage)
    needed: set[str | None] = {
        version for version, marks in _marks(state).items() if marks != ["blocked"]
    }
    if reference := reference_deployment(storage, day):
        needed.add(reference["version"])
    # references of later days
    needed |= {
        deployment["version"]
        for deployment in state["deployments"]
        if date.fromisoformat(deployment["day"]) > day - REFERENCE_AGE
    }
    damaged = []
    for path in storage.list("jobs"):
        parts = paths.parse(path)
        if parts and parts.name == SPEC:
            try:
                spec = storage.read_record(path, "version", "champion")
            except DamagedError as error:
                damaged.append(str(error))
                continue
            if MANIFEST not in versions.get(spec["version"], {}):
                needed |= {spec["champion"], spec.get("reference")}
    return needed, damaged


def _marks(state: DeploymentState) -> dict[str, list[str]]:
    """By version: live, previous, swapping, pinned, blocked."""
    names = [deployment["version"] for deployment in state["deployments"]]
    previous = next((name for name in reversed(names) if name != names[-1]), None)
    marked = {
        "live": names[-1:],
        "previous": [previous] if previous else [],
        "swapping": [state["swapping"]["version"]] if state["swapping"] else [],
        "pinned": state["pinned"],
        "blocked": state["blocked"],
    }
    marks: dict[str, list[str]] = {}
    for mark, versions in marked.items():
        for version in versions:
            marks.setdefault(version, []).append(mark)
    return marks


def _read_state(
    storage: Storage, version: str, written: Mapping[str, datetime]
) -> tuple[str, Manifest | None]:
    """finished, damaged, unfinished or expired; and the manifest of a finished version."""
    if MANIFEST not in written:
        return "unfinished" if written.keys() - KEPT_FILES else "expired", None
    try:
        return "finished", load_manifest(storage, version)
    except ModelError:
        return "damaged", None


def _read_kept(storage: Storage, version: str, written: Mapping[str, datetime]) -> dict[str, Any]:
    """The metrics and the verdict of a version, None where they are missing or damaged."""
    kept: dict[str, Any] = {"metrics": None, "verdict": None}
    for key, name, fields in (
        ("metrics", METRICS, ()),
        ("verdict", VERDICT, ("blessed", "forced")),
    ):
        if name in written:
            try:
                kept[key] = storage.read_record(paths.model(version, name), *fields)
            except DamagedError as error:
                log.warning("%s", error)
    return kept


def _challenger_metrics(storage: Storage, version: str) -> Mapping[str, float]:
    """A version's own metrics by name; empty before its evaluation."""
    path = paths.model(version, METRICS)
    if not storage.exists(path):
        return {}
    metrics: Mapping[str, float] = storage.read_record(path, "challenger")["challenger"]
    return metrics


def _verdict_word(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "no verdict"
    if verdict["blessed"] is True:
        return "blessed"
    return "forced" if verdict["forced"] else "not blessed"


def _ndcg(metrics: Mapping[str, Any] | None, model: str) -> float | None:
    """NDCG at the last cut-off."""
    figures, cutoffs = ((metrics or {}).get(name) for name in (model, "cutoffs"))
    return figures.get(f"ndcg@{cutoffs[-1]}") if figures and cutoffs else None


def _made_of(manifest: Manifest) -> dict[str, Any]:
    """What may differ between two versions, by dotted name."""
    fields = {
        *("day", "window_start", "history_version", "users", "items", "seeds"),
        *("started_from", "fitted_cold", "code", "packages"),
    }
    settings = {"confidence", "training", "evaluation", "lists", "champion", "reference"}
    return flatten(
        {
            **manifest.model_dump(mode="json", include=fields),
            "device": manifest.run.device,
            **manifest.spec.model_dump(mode="json", include=settings),
        }
    )


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            flat |= flatten(inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = inner
    return flat
