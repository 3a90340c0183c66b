"""A model version in storage: its files, the manifest written last, and reading it back with every sum checked."""

import logging
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.errors import ModelError
from recsys_ops.evaluation.compare import Evaluation, RefitLists, compare_models
from recsys_ops.models.spec import JobSpec, code_digest, ids_digest, package_versions
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class FileSum(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int


class RunUsage(BaseModel):
    """What was measured of the run that made a version, until all was written but the manifest.

    device : kind (gpu or cpu), name and solver; of a gpu driver, cuda and cupy
    seconds : of each phase; the manifest's own writing is missing in `write`
    bytes_read : in phase `read`, and the job's spec · bytes_written : in phase `write`; checkpoints and log are in neither
    gpu_peak_memory_bytes : None where no gpu was used
    resumed : by phase the number of sweeps that an earlier, killed run had done; None where nothing was left of one
    cost : of this run from the start of its process, at the spec's price; None without a price
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: dict[str, str]
    seconds: dict[str, float]
    bytes_read: int
    bytes_written: int
    peak_memory_bytes: int
    gpu_peak_memory_bytes: int | None
    resumed: dict[str, int] | None
    cost: float | None


class Manifest(BaseModel):
    """What a model version is made of, and under `run` what making it took: the same job gives the same but for `run`.

    started_from : the version whose factors the fit went on from, None for a cold fit
    fitted_cold : the day of the last cold fit, this one's or of those before it
    code : SHA-256 of the sources that computed, as they were on the machine that trained
    packages : the versions of what computed
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    day: date
    window_start: date
    history_version: int
    users: int
    items: int
    seeds: dict[str, int]
    started_from: str | None
    fitted_cold: date
    code: str
    packages: dict[str, str]
    spec: JobSpec
    files: dict[str, FileSum]
    run: RunUsage


def write_model(
    storage: Storage,
    spec: JobSpec,
    factors: Factors,
    evaluation: Evaluation,
    frames: Mapping[str, pl.DataFrame],
    *,
    started_from: Manifest | None,
    measured: Callable[[], RunUsage],
) -> None:
    """Write a version's files, the manifest last: a version without a manifest is not finished.

    frames : users, items, recommendations, similar, bought_together, popular, categories, trending
    started_from : the version whose factors the fit went on from, None for a cold fit
    measured : called when all but the manifest is written
    """
    contents = {
        "factors.npz": serialization.from_arrays({"user": factors.user, "item": factors.item}),
        "evaluation.npz": _from_evaluation(evaluation),
        **{f"{name}.parquet": serialization.from_frame(frame) for name, frame in frames.items()},
    }
    for name, data in contents.items():
        storage.put(paths.model(spec.version, name), data)
    manifest = Manifest(
        version=spec.version,
        day=spec.day,
        window_start=spec.window_start,
        history_version=spec.history_version,
        users=len(factors.user),
        items=len(factors.item),
        seeds={"start": spec.training.seed},
        started_from=started_from.version if started_from else None,
        fitted_cold=started_from.fitted_cold if started_from else spec.day,
        code=code_digest(),
        packages=package_versions(),
        spec=spec,
        files={
            name: FileSum(sha256=serialization.sha256(data), bytes=len(data))
            for name, data in contents.items()
        },
        run=measured(),
    )
    storage.write_json(paths.model(spec.version, MANIFEST), manifest.model_dump(mode="json"))


def load_manifest(storage: Storage, version: str) -> Manifest:
    """Raises ModelError when the version does not exist, is not finished, or its manifest is damaged."""
    path = paths.model(version, MANIFEST)
    if not storage.exists(path):
        raise ModelError(
            f"there is no finished model version {version} ({storage.url(path)} is missing): train it again"
        )
    try:
        manifest = Manifest.model_validate_json(storage.get(path))
    except ValidationError as error:
        raise ModelError(
            f"{storage.url(path)} is damaged, or of an older release ({error.error_count()} wrong fields): train it again; "
            f"where it is the live one of an older release, delete {paths.LIVE} and deploy a first one again"
        ) from error
    if manifest.version != version:
        raise ModelError(
            f"{storage.url(path)} belongs to version {manifest.version}: train {version} again"
        )
    return manifest


def verify_version(storage: Storage, version: str) -> Manifest:
    """Check every file of a version against its manifest. Raises ModelError naming the first that is missing or differs."""
    manifest = load_manifest(storage, version)
    for name in manifest.files:
        _read(storage, manifest, name)
    return manifest


def is_finished(storage: Storage, spec: JobSpec) -> bool:
    """Whether a job's version is there, made by this machine's code and packages, and every file is as its manifest says."""
    if not storage.exists(paths.model(spec.version, MANIFEST)):
        return False
    try:
        manifest = load_manifest(storage, spec.version)
        return (manifest.code, manifest.packages) == (code_digest(), package_versions()) and bool(
            verify_version(storage, spec.version)
        )
    except ModelError as error:
        log.warning("%s", error)
        return False


def read_frame(storage: Storage, manifest: Manifest, name: str) -> pl.DataFrame:
    """One of the frames of `write_model`. Raises ModelError when it is not the file the manifest names."""
    return serialization.to_frame(_read(storage, manifest, f"{name}.parquet"))


def read_factors(storage: Storage, manifest: Manifest) -> Factors:
    """The served factors; rows as in users.parquet and items.parquet. Raises ModelError like `read_frame`."""
    return Factors(**serialization.to_arrays(_read(storage, manifest, "factors.npz")))


def read_evaluation(storage: Storage, manifest: Manifest) -> Evaluation:
    """The lists made for the held-out day. Raises ModelError like `read_frame`."""
    arrays = serialization.to_arrays(_read(storage, manifest, "evaluation.npz"))
    indptr, indices = arrays.pop("holdout_indptr"), arrays.pop("holdout_indices")
    shape = (len(indptr) - 1, int(arrays.pop("n_items")))
    relevant = sparse.csr_matrix((np.ones(len(indices), dtype=bool), indices, indptr), shape=shape)
    served = RefitLists(arrays.pop("served"), arrays.pop("norms"))
    champion, reference = (arrays.pop(name, None) for name in _MAY_BE_NONE)
    return Evaluation(
        relevant=relevant, served=served, champion=champion, reference=reference, **arrays
    )


def evaluation_figures(storage: Storage, spec: JobSpec) -> dict[str, Any]:
    """The figures of a job's version for the gate, JSON-able; the bootstrap is seeded by the job."""
    manifest = load_manifest(storage, spec.version)
    factors = read_factors(storage, manifest)
    before = load_manifest(storage, spec.champion).spec.data if spec.champion else None
    ids = (
        read_frame(storage, manifest, "users")["user_id"],
        read_frame(storage, manifest, "items")["item_id"],
    )
    return {
        "day": str(manifest.day),
        "protocol": spec.evaluation.protocol,
        "champion_version": spec.champion,
        "reference_version": spec.reference,
        "factors_finite": bool(np.isfinite(factors.user).all() and np.isfinite(factors.item).all()),
        "ids_match": ids_digest(*ids) == spec.ids
        and (len(ids[0]), len(ids[1])) == (len(factors.user), len(factors.item)),
        "data": spec.data and spec.data.model_dump(),
        "champion_data": before and before.model_dump(),
        **compare_models(
            read_evaluation(storage, manifest),
            k=spec.evaluation.cutoffs,
            seed=spec.training.seed,
        ),
    }


def _read(storage: Storage, manifest: Manifest, name: str) -> bytes:
    path = paths.model(manifest.version, name)
    if name not in manifest.files or not storage.exists(path):
        raise ModelError(f"{storage.url(path)} is missing: train version {manifest.version} again")
    data = storage.get(path)
    if serialization.sha256(data) != manifest.files[name].sha256:
        raise ModelError(
            f"{storage.url(path)} is damaged (SHA-256 differs): train version {manifest.version} again"
        )
    return data


_MAY_BE_NONE = ("champion", "reference")


def _from_evaluation(evaluation: Evaluation) -> bytes:
    assert evaluation.served is not None
    arrays = {
        "users": evaluation.users,
        "met": evaluation.met,
        "buyers": evaluation.buyers,
        "challenger": evaluation.challenger,
        "popularity": evaluation.popularity,
        "most_popular": evaluation.most_popular,
        "information": evaluation.information,
        "holdout_indptr": evaluation.relevant.indptr,
        "holdout_indices": evaluation.relevant.indices,
        "n_items": np.int64(evaluation.relevant.shape[1]),
        "served": evaluation.served.lists,
        "norms": evaluation.served.norms,
    }
    others = {
        name: found for name in _MAY_BE_NONE if (found := getattr(evaluation, name)) is not None
    }
    return serialization.from_arrays(arrays | others)
