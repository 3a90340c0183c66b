"""The model versions in storage: which there are, what is known of each, how two differ, and which have had their time."""

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from recsys_ops.errors import ModelError
from recsys_ops.models.deployments import (
    REFERENCE_AGE,
    DeploymentState,
    list_deployments,
    read_deployment_state,
    reference_deployment,
)
from recsys_ops.models.version import MANIFEST, Manifest, load_manifest, read_frame
from recsys_ops.settings import ModelsSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

METRICS, VERDICT = "metrics.json", "verdict.json"
# what explains a decision: a few kilobytes without personal data, which outlive the version
KEPT = frozenset({METRICS, VERDICT})
_NAMED = 10


def existing_versions(storage: Storage) -> dict[str, dict[str, datetime]]:
    """Every version that has more than `KEPT`, the newest first: its files, each with the time at which the store got it."""
    return {version: files for version, files in _all(storage).items() if files.keys() - KEPT}


def check_exists(storage: Storage, version: str) -> dict[str, datetime]:
    """The files of a version, expired ones included. Raises ModelError with what there is."""
    found = _all(storage)
    if version not in found:
        there = [name for name, files in found.items() if MANIFEST in files]
        more = f" and {len(there) - _NAMED} older ones" if len(there) > _NAMED else ""
        raise ModelError(
            f"there is no model version {version}; there are {', '.join(there[:_NAMED]) or 'none'}{more}"
        )
    return found[version]


def check_finished(storage: Storage, version: str) -> Manifest:
    """The manifest of a version. Raises ModelError with what there is, or where the version is unfinished, damaged or expired."""
    check_exists(storage, version)
    return load_manifest(storage, version)


def version_day(version: str) -> date:
    """The day that a version's name begins with: its manifest's."""
    return date(int(version[:4]), int(version[4:6]), int(version[6:8]))


def rollback_targets(storage: Storage) -> list[str]:
    """The finished versions that the gate blessed, or somebody forced through it, the newest first, without the live one."""
    live = [deployment["version"] for deployment in list_deployments(storage)[-1:]]
    judged = [
        version
        for version, files in existing_versions(storage).items()
        if {MANIFEST, VERDICT} <= files.keys()
    ]
    return [
        version
        for version in judged
        if version not in live
        and _in_a_word(storage.read_json(paths.model(version, VERDICT))) in ("blessed", "forced")
    ]


def list_versions(storage: Storage, last: int, today: date) -> list[dict[str, Any]]:
    """A row for each of the `last` newest versions, the newest first."""
    live = read_deployment_state(storage)
    marks = _marks(live)
    rows = []
    for version, files in list(existing_versions(storage).items())[:last]:
        state, manifest = _manifest(storage, version, files)
        known = _decided(storage, version, files)
        rows.append(
            {
                "version": version,
                "day": version_day(version),
                "age_days": (today - version_day(version)).days,
                "verdict": _in_a_word(known["verdict"]) if state == "finished" else state,
                "ndcg": _decisive(known["metrics"], "challenger"),
                "champion_ndcg": _decisive(known["metrics"], "champion"),
                "is": marks.get(version, []),
                "started_from": manifest and manifest.started_from,
                "bytes": manifest and sum(file.bytes for file in manifest.files.values()),
            }
        )
    return rows


def describe_version(storage: Storage, version: str) -> dict[str, Any]:
    """All that is known of a version: ``state``, ``is``, ``manifest``, ``metrics``, ``verdict``, ``deployments``, ``blocked``.

    manifest, metrics, verdict : None where there is none (any more)
    Raises ModelError when nothing is known.
    """
    files = check_exists(storage, version)
    live = read_deployment_state(storage)
    state, manifest = _manifest(storage, version, files)
    return {
        "version": version,
        "state": state,
        "is": _marks(live).get(version, []),
        "manifest": manifest and manifest.model_dump(mode="json"),
        **_decided(storage, version, files),
        "deployments": [past for past in live["deployments"] if past["version"] == version],
        "blocked": live["blocked"].get(version),
    }


def compare_versions(storage: Storage, one: str, other: str) -> dict[str, Any]:
    """What differs between two finished versions: ``made_of`` and ``metrics``, each a pair by name, and the lists' ``overlap``.

    made_of : settings, data, code and packages that differ · metrics : the challenger's, where both have them
    overlap : see `overlap`; overlap_users : the number of users whom both have a list for
    Raises ModelError for a version that is not there or not finished.
    """
    pair = (one, other)
    manifests = [check_finished(storage, version) for version in pair]
    made = [_made_of(manifest) for manifest in manifests]
    scores = [_challenger(storage, version) for version in pair]
    lists = [read_frame(storage, manifest, "recommendations") for manifest in manifests]
    shared = list_overlap(*lists)
    return {
        "made_of": {
            name: (made[0].get(name), made[1].get(name))
            for name in sorted({*made[0], *made[1]})
            if made[0].get(name) != made[1].get(name)
        },
        "metrics": {
            name: (score, scores[1][name]) for name, score in scores[0].items() if name in scores[1]
        },
        "overlap": shared.mean(),
        "overlap_users": len(shared),
    }


def list_overlap(one: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """For each user with a list in both: the items in both, over the length of the longer list, Float64.

    one, other : user_id String, items List[String]
    """
    both = one.select("user_id", "items").join(
        other.select("user_id", theirs="items"), on="user_id"
    )
    ours, theirs = pl.col("items"), pl.col("theirs")
    shared = ours.list.set_intersection(theirs).list.len() / pl.max_horizontal(
        ours.list.len(), theirs.list.len()
    )
    return both.select(shared.alias("overlap"))["overlap"]


def expire_versions(
    storage: Storage, day: date, written: datetime, settings: ModelsSettings
) -> int:
    """Delete the versions that are both too old and not among the newest; returns how many. Their `KEPT` files stay.

    Never the live version, the one before it, a pinned one, one that the gate compares with, one that an unfinished job needs,
    nor one of which a file was written at `written` or later. A version without a manifest is none of the newest. The manifest
    goes first: what a kill leaves is an unfinished version, and gone the next time.

    day : the run's; ages are counted back from it
    """
    there = existing_versions(storage)
    oldest = day - timedelta(days=settings.keep_days)
    newest = [version for version, files in there.items() if MANIFEST in files][: settings.keep_newest]
    old = [
        version
        for version, files in there.items()
        if version_day(version) < oldest and version not in newest and max(files.values()) < written
    ]
    expired = {*old} - _needed(storage, there, day) if old else set()
    for version in sorted(expired):
        for name in sorted(there[version].keys() - KEPT, key=lambda name: name != MANIFEST):
            storage.delete(paths.model(version, name))
    return len(expired)


def _all(storage: Storage) -> dict[str, dict[str, datetime]]:
    versions: dict[str, dict[str, datetime]] = {}
    for path, at in storage.written("models").items():
        if place := re.fullmatch(r"models/(\d{8}-[0-9a-f]{10})/(.+)", path):
            versions.setdefault(place[1], {})[place[2]] = at
    newest_first = sorted(
        versions, key=lambda version: (version[:8], max(versions[version].values())), reverse=True
    )
    return {version: versions[version] for version in newest_first}


def _needed(
    storage: Storage, there: Mapping[str, Mapping[str, datetime]], day: date
) -> set[str | None]:
    """The versions that somebody may still ask for."""
    live = read_deployment_state(storage)
    needed: set[str | None] = {
        version for version, marks in _marks(live).items() if marks != ["blocked"]
    }
    if compared := reference_deployment(storage, day):
        needed.add(compared["version"])
    # the references of the days to come
    needed |= {
        d["version"]
        for d in live["deployments"]
        if date.fromisoformat(d["day"]) > day - REFERENCE_AGE
    }
    for path in storage.list("jobs"):
        if path.endswith("/spec.json"):
            spec = storage.read_json(path)
            if MANIFEST not in there.get(spec["version"], {}):
                needed |= {spec["champion"], spec.get("reference")}
    return needed


def _marks(live: DeploymentState) -> dict[str, list[str]]:
    """By version what it is: live, previous, pinned, blocked."""
    names = [deployment["version"] for deployment in live["deployments"]]
    previous = next((name for name in reversed(names) if name != names[-1]), None)
    found = {
        "live": names[-1:],
        "previous": [previous] if previous else [],
        "pinned": live["pinned"],
        "blocked": live["blocked"],
    }
    marks: dict[str, list[str]] = {}
    for mark, versions in found.items():
        for version in versions:
            marks.setdefault(version, []).append(mark)
    return marks


def _manifest(
    storage: Storage, version: str, files: Mapping[str, Any]
) -> tuple[str, Manifest | None]:
    """finished, damaged, unfinished or expired; and the manifest of a finished version."""
    if MANIFEST not in files:
        return "unfinished" if files.keys() - KEPT else "expired", None
    try:
        return "finished", load_manifest(storage, version)
    except ModelError:
        return "damaged", None


def _decided(storage: Storage, version: str, files: Mapping[str, Any]) -> dict[str, Any]:
    names = {"metrics": METRICS, "verdict": VERDICT}
    return {
        key: storage.read_json(paths.model(version, name)) if name in files else None
        for key, name in names.items()
    }


def _challenger(storage: Storage, version: str) -> Mapping[str, float]:
    """A version's metrics by name, empty before its evaluation."""
    path = paths.model(version, METRICS)
    return storage.read_json(path)["challenger"] if storage.exists(path) else {}


def _in_a_word(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "not judged"
    if verdict["blessed"] is True:
        return "blessed"
    return "forced" if verdict["forced"] else "not blessed"


def _decisive(metrics: Mapping[str, Any] | None, model: str) -> float | None:
    """NDCG at the last cut-off."""
    return metrics[model][f"ndcg@{metrics['cutoffs'][-1]}"] if metrics and metrics[model] else None


def _made_of(manifest: Manifest) -> dict[str, Any]:
    """What may differ between two versions, by dotted name."""
    fields = {
        "day",
        "window_start",
        "history_version",
        "users",
        "items",
        "seeds",
        "started_from",
        "fitted_cold",
        "code",
        "packages",
    }
    settings = {"confidence", "training", "evaluation", "lists", "champion", "reference"}
    dumped = manifest.model_dump(mode="json", include=fields)
    return flatten(
        {
            **dumped,
            "device": manifest.run.device,
            **manifest.spec.model_dump(mode="json", include=settings),
        }
    )


def flatten(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= (
            flatten(inner, f"{above}{name}.")
            if isinstance(inner, dict)
            else {f"{above}{name}": inner}
        )
    return found
