"""A model version in storage: its files, and the manifest that lists them and is written last."""

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
from recsys_ops.evaluation.list_figures import KINDS, list_figures, lost_share
from recsys_ops.models.code_version import code_digest, package_versions
from recsys_ops.models.files import EVALUATION, FACTORS, MANIFEST, METRICS, table
from recsys_ops.models.spec import JobSpec, ids_digest
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

# the lists of an `Evaluation` that may be None
_OPTIONAL_LISTS = ("champion", "reference")


class FileSum(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int


class RunUsage(BaseModel):
    """What the worker's run took, measured just before it wrote the manifest.

    device : kind (gpu or cpu), name and solver; for a GPU also driver, cuda and cupy
    seconds : of each phase; phase `write` without the manifest
    bytes_read : the job's spec and what phase `read` read
    bytes_written : by phase `write`; without checkpoints and log
    gpu_peak_memory_bytes : None without a GPU
    resumed : by phase the number of sweeps that an earlier, killed run had done; None if there was
        no checkpoint of one
    cost : of this run since its process started, at the spec's price; None without a price
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
    """What a model version is made of. The same job gives the same manifest except for `run`.

    started_from : the version whose factors the fit started from; None for a cold start
    fitted_cold : the day of the last cold start, of this version or of those it goes back to
    code : `code_digest` of the machine that trained
    packages : the package versions of the machine that trained
    files : every file of the version except the manifest, by name
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


def write_version(
    storage: Storage,
    spec: JobSpec,
    factors: Factors,
    evaluation: Evaluation,
    frames: Mapping[str, pl.DataFrame],
    *,
    started_from: Manifest | None,
    measure: Callable[[], RunUsage],
) -> None:
    """Write a version's files, the manifest last: a version without a manifest is not finished.

    frames : users, items, recommendations, similar, bought_together, popular, categories, trending
    started_from : of the version whose factors the fit started from; None for a cold start
    measure : called when everything but the manifest is written
    """
    contents = {
        FACTORS: serialization.from_arrays({"user": factors.user, "item": factors.item}),
        EVALUATION: _from_evaluation(evaluation),
        **{table(name): serialization.from_frame(frame) for name, frame in frames.items()},
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
        run=measure(),
    )
    storage.write_json(paths.model(spec.version, MANIFEST), manifest.model_dump(mode="json"))


def load_manifest(storage: Storage, version: str) -> Manifest:
    """The manifest of a finished version.

    Raises ModelError if the version does not exist, is not finished, or its manifest is damaged.
    """
    path = paths.model(version, MANIFEST)
    if not storage.exists(path):
        raise ModelError(
            f"there is no finished model version {version} ({storage.url(path)} is missing): "
            "train it again"
        )
    try:
        manifest = Manifest.model_validate_json(storage.get(path))
    except ValidationError as error:
        raise ModelError(
            f"{storage.url(path)} is damaged or of an older release "
            f"({error.error_count()} wrong fields): train it again; if it is the live version of "
            f"an older release, delete {paths.LIVE} and make a first deployment again"
        ) from error
    if manifest.version != version:
        raise ModelError(
            f"{storage.url(path)} belongs to version {manifest.version}: train {version} again"
        )
    return manifest


def verify_version(storage: Storage, version: str) -> Manifest:
    """Check every file of a version against its manifest, and return the manifest.

    Raises ModelError that names the first file that is missing or differs.
    """
    manifest = load_manifest(storage, version)
    for name in manifest.files:
        _read(storage, manifest, name)
    return manifest


def is_finished(storage: Storage, spec: JobSpec) -> bool:
    """Whether a job's version exists, undamaged and made by the code and packages of this machine.

    A damaged version is named in the log.
    """
    if not storage.exists(paths.model(spec.version, MANIFEST)):
        return False
    try:
        manifest = load_manifest(storage, spec.version)
        if (manifest.code, manifest.packages) != (code_digest(), package_versions()):
            return False
        verify_version(storage, spec.version)
    except ModelError as error:
        log.warning("%s", error)
        return False
    return True


def read_frame(
    storage: Storage, manifest: Manifest, name: str, columns: list[str] | None = None
) -> pl.DataFrame:
    """One of the frames of `write_version`, or some of its columns.

    Raises ModelError if the file is missing or not the one that the manifest names.
    """
    return serialization.to_frame(_read(storage, manifest, table(name)), columns)


def read_factors(storage: Storage, manifest: Manifest) -> Factors:
    """The served factors, with rows as in the frames `users` and `items`.

    Raises ModelError like `read_frame`.
    """
    return Factors(**serialization.to_arrays(_read(storage, manifest, FACTORS)))


def read_evaluation(storage: Storage, manifest: Manifest) -> Evaluation:
    """The lists that the worker made for the hold-out. Raises ModelError like `read_frame`."""
    arrays = serialization.to_arrays(_read(storage, manifest, EVALUATION))
    indptr, indices = arrays.pop("holdout_indptr"), arrays.pop("holdout_indices")
    shape = (len(indptr) - 1, int(arrays.pop("n_items")))
    relevant = sparse.csr_matrix((np.ones(len(indices), dtype=bool), indices, indptr), shape=shape)
    served = RefitLists(arrays.pop("served"), arrays.pop("norms"))
    champion, reference = (arrays.pop(name, None) for name in _OPTIONAL_LISTS)
    return Evaluation(
        relevant=relevant, served=served, champion=champion, reference=reference, **arrays
    )


def evaluation_figures(storage: Storage, spec: JobSpec) -> dict[str, Any]:
    """The figures of a job's version for the gate, ready for JSON; the job seeds the bootstrap.

    The lists are those that the version has stored, and that would be served. Memory grows with the
    factors, and with the lists of one version at a time.
    """
    manifest = load_manifest(storage, spec.version)
    factors = read_factors(storage, manifest)
    champion = load_manifest(storage, spec.champion) if spec.champion else None
    champion_data = champion.spec.data if champion else None
    users = read_frame(storage, manifest, "users")["user_id"]
    items = read_frame(storage, manifest, "items")["item_id"]
    return {
        "day": str(manifest.day),
        "protocol": spec.evaluation.protocol,
        "champion_version": spec.champion,
        "reference_version": spec.reference,
        "factors_finite": bool(np.isfinite(factors.user).all() and np.isfinite(factors.item).all()),
        "ids_match": ids_digest(users, items) == spec.ids
        and (len(users), len(items)) == (len(factors.user), len(factors.item)),
        "data": spec.data and spec.data.model_dump(mode="json"),
        "champion_data": champion_data and champion_data.model_dump(mode="json"),
        "lists": _list_figures(storage, manifest, champion),
        "champion_lists": champion and _earlier_list_figures(storage, champion),
        **compare_models(
            read_evaluation(storage, manifest),
            cutoffs=spec.evaluation.cutoffs,
            seed=spec.training.seed,
        ),
    }


def _list_figures(
    storage: Storage, manifest: Manifest, champion: Manifest | None
) -> dict[str, Any]:
    """The figures of a version's lists, and ``lost_share``, what the champion's have lost.

    ``changed_settings`` are the names of the settings of the lists that are not the champion's.
    """
    popular = read_frame(storage, manifest, "popular")["item_id"]
    figures = list_figures(
        {kind: _items(storage, manifest, kind) for kind in KINDS},
        popular,
        n_users=manifest.users,
        top_n=manifest.spec.lists.top_n,
    )
    items = read_frame(storage, manifest, "items")
    # the popular list has the pinned items, which need not be among the items of the matrices
    may_be_listed = pl.concat([items.filter("eligible")["item_id"], popular])
    own = manifest.spec.lists.model_dump()
    earlier = champion.spec.lists.model_dump() if champion else own
    return figures | {
        "lost_share": champion
        and lost_share(_items(storage, champion, "recommendations"), may_be_listed),
        "changed_settings": [name for name in own if own[name] != earlier[name]],
    }


def _items(storage: Storage, manifest: Manifest, kind: str) -> pl.Series:
    """The items of each list of a kind, List[String]."""
    return read_frame(storage, manifest, kind, ["items"])["items"]


def _earlier_list_figures(storage: Storage, champion: Manifest) -> dict[str, Any] | None:
    """The figures of the champion's lists; None where an older release has not counted them."""
    path = paths.model(champion.version, METRICS)
    figures: dict[str, Any] | None = (
        storage.read_record(path).get("lists") if storage.exists(path) else None
    )
    return figures


def _read(storage: Storage, manifest: Manifest, name: str) -> bytes:
    path = paths.model(manifest.version, name)
    if name not in manifest.files or not storage.exists(path):
        raise ModelError(f"{storage.url(path)} is missing: train version {manifest.version} again")
    data = storage.get(path)
    if serialization.sha256(data) != manifest.files[name].sha256:
        raise ModelError(
            f"{storage.url(path)} is damaged (SHA-256 differs): "
            f"train version {manifest.version} again"
        )
    return data


def _from_evaluation(evaluation: Evaluation) -> bytes:
    assert evaluation.served is not None
    arrays = {
        "users": evaluation.users,
        "n_items_before": evaluation.n_items_before,
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
    optional = {
        name: lists for name in _OPTIONAL_LISTS if (lists := getattr(evaluation, name)) is not None
    }
    return serialization.from_arrays(arrays | optional)
