"""The job spec: what `build_matrix` writes for the worker, and the inputs beside it."""

import json
import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import sparse

import recsys_ops
from recsys_ops.errors import ModelError
from recsys_ops.interactions.day_profile import DayProfile
from recsys_ops.interactions.matrix import Interactions
from recsys_ops.lists.bought_together import Baskets
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    ListsSettings,
    TrainingSettings,
)
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage

SPEC = "spec.json"
RESULT = "result.json"
LOG = "worker.log"
NDCG = "ndcg.npz"


class JobSpec(BaseModel):
    """One training job. Everything the model depends on is here, so that the version names the content.

    Price and `data` alone change neither model nor version.

    purpose : serve makes a model version; score only fits and scores, and leaves each user's NDCG beside the result
    day : the held-out day, the last the served model learns from
    confidence : what the matrices were weighed by
    champion : the version to score on the same day, and to start from, None where there is none
    reference : an older version to score on the same day, None where there is none
    data : what the day and the window look like, None where nobody will judge that
    history_version, window_start : what the matrices were built from
    inputs : SHA-256 of each file beside the spec · ids : `ids_digest` of its users and items
    code, packages : what `build_matrix` was run with; the worker's own are in the manifest
    lists : what will be served; the lists that are evaluated go by `evaluation`
    price_per_hour : of the machine, in the user's currency; None: the manifest names no cost
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Literal["serve", "score"] = "serve"
    day: date
    version: str
    confidence: ConfidenceSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    lists: ListsSettings
    champion: str | None
    reference: str | None
    data: DayProfile | None
    history_version: int
    window_start: date
    inputs: dict[str, str]
    ids: str
    code: str
    packages: dict[str, str]
    price_per_hour: float | None


@dataclass(frozen=True)
class JobInputs:
    """What a job reads.

    eligible : bool, (n_items,), the items that any list may hold
    """

    interactions: Interactions
    eligible: NDArray[np.bool_]
    shop: ListInputs


def write_job(
    storage: Storage,
    day: date,
    interactions: Interactions,
    eligible: NDArray[np.bool_],
    *,
    confidence: ConfidenceSettings,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    lists: ListsSettings,
    champion: str | None,
    history_version: int,
    window_start: date,
    reference: str | None = None,
    data: DayProfile | None = None,
    price_per_hour: float | None = None,
    shop: ListInputs | None = None,
    purpose: Literal["serve", "score"] = "serve",
) -> JobSpec:
    """Write a job's inputs, then its spec, under ``jobs/day=…``; the same job gives the same bytes and the same version.

    eligible : bool, (n_items,), in the order of ``interactions.items``
    shop : in the same order; None where the lists that need it are wanted empty
    """
    shop = shop or ListInputs.empty(len(interactions.items))
    items = pl.DataFrame(
        {"item_id": interactions.items, "eligible": eligible, "category": shop.category}
    )
    bought = shop.baskets
    contents = {
        "train.npz": serialization.from_matrix(interactions.train),
        "full.npz": serialization.from_matrix(interactions.full),
        "holdout.npz": serialization.from_matrix(interactions.holdout),
        "users.parquet": serialization.from_frame(
            pl.DataFrame({"user_id": interactions.users, "buyer": interactions.buyers})
        ),
        "items.parquet": serialization.from_frame(items),
        "pinned.parquet": serialization.from_frame(shop.pinned),
        "baskets.npz": serialization.from_arrays(
            {
                "indptr": bought.items.indptr,
                "indices": bought.items.indices,
                "weights": bought.weights,
            }
        ),
        "trending.parquet": serialization.from_frame(shop.trending),
    }
    unnamed = JobSpec(
        purpose=purpose,
        day=day,
        version="",
        confidence=confidence,
        training=training,
        evaluation=evaluation,
        lists=lists,
        champion=champion,
        reference=reference,
        data=data,
        history_version=history_version,
        window_start=window_start,
        inputs={name: serialization.sha256(content) for name, content in contents.items()},
        ids=ids_digest(interactions.users, interactions.items),
        code=code_digest(),
        packages=package_versions(),
        price_per_hour=price_per_hour,
    )
    named_by = unnamed.model_dump(mode="json", exclude={"version", "price_per_hour", "data"})
    canonical = json.dumps(named_by, sort_keys=True)
    spec = unnamed.model_copy(
        update={"version": f"{day:%Y%m%d}-{serialization.sha256(canonical.encode())[:10]}"}
    )
    for name, content in contents.items():
        storage.put(paths.job(day, name), content)
    storage.write_json(paths.job(day, SPEC), spec.model_dump(mode="json"))
    return spec


def read_spec(storage: Storage, day: date) -> JobSpec:
    """Raises StorageError when the spec is missing, ModelError when it is not a job spec."""
    data = storage.get(paths.job(day, SPEC))
    try:
        return JobSpec.model_validate_json(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
        )
        raise ModelError(
            f"{storage.url(paths.job(day, SPEC))} is no job spec ({problems}): run build_matrix again"
        ) from error


def read_inputs(storage: Storage, spec: JobSpec) -> JobInputs:
    """Raises ModelError when a file is not the one the spec names, or the files do not fit together."""
    users = serialization.to_frame(_read(storage, spec, "users.parquet"))
    items = serialization.to_frame(_read(storage, spec, "items.parquet"))
    train, full, holdout = (
        serialization.to_matrix(_read(storage, spec, f"{name}.npz"))
        for name in ("train", "full", "holdout")
    )
    if {train.shape, full.shape, holdout.shape} != {(users.height, items.height)}:
        raise ModelError(
            f"the matrices of {spec.day} have shapes {train.shape}, {full.shape}, {holdout.shape}, but there are "
            f"{users.height:,} users and {items.height:,} items: run build_matrix again"
        )
    buyers = users["buyer"].to_numpy()
    pinned, trending = (
        serialization.to_frame(_read(storage, spec, f"{name}.parquet"))
        for name in ("pinned", "trending")
    )
    bought = serialization.to_arrays(_read(storage, spec, "baskets.npz"))
    shape = (len(bought["weights"]), items.height)
    cells = np.ones(len(bought["indices"]), dtype=bool), bought["indices"], bought["indptr"]
    return JobInputs(
        Interactions(users["user_id"], items["item_id"], train, full, holdout, buyers),
        items["eligible"].to_numpy(),
        ListInputs(
            items["category"],
            pinned,
            Baskets(sparse.csr_matrix(cells, shape=shape), bought["weights"]),
            trending,
        ),
    )


def ids_digest(users: pl.Series, items: pl.Series) -> str:
    """SHA-256 of the ids in their order: those of a matrix and those beside its factors must be the same."""
    ids = pl.concat([users.alias("id"), pl.Series("id", [""]), items.alias("id")])
    return serialization.sha256(ids.str.join("\n").item().encode())


def code_digest() -> str:
    """SHA-256 of the sources that compute a model."""
    root = Path(recsys_ops.__file__).parent
    packages = ("als", "evaluation", "interactions", "lists")
    sources = [
        root / "jit.py",
        *(path for package in packages for path in sorted((root / package).glob("*.py"))),
    ]
    return serialization.sha256(b"".join(path.read_bytes() for path in sources))


def package_versions() -> dict[str, str]:
    """The versions of what computes a model."""
    versions = {name: version(name) for name in ("implicit", "numba", "numpy", "polars", "scipy")}
    return versions | {"python": platform.python_version()}


def _read(storage: Storage, spec: JobSpec, name: str) -> bytes:
    path = paths.job(spec.day, name)
    data = storage.get(path)
    if serialization.sha256(data) != spec.inputs.get(name):
        raise ModelError(
            f"{storage.url(path)} is not the file the job spec names (its SHA-256 differs): run build_matrix again"
        )
    return data
