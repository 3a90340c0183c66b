"""The job spec: what `build_matrix` writes for the worker, and the inputs beside it."""

import json
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import sparse

from recsys_ops.errors import ModelError
from recsys_ops.interactions.day_profile import DayProfile
from recsys_ops.interactions.matrix import Interactions
from recsys_ops.lists.bought_together import Baskets
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.models import files
from recsys_ops.models.code_version import code_digest, package_versions
from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    ListsSettings,
    TrainingSettings,
)
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage


class JobDraft(BaseModel):
    """What is decided about a training job before its inputs are written.

    purpose : `serve` makes a model version; `score` only fits and evaluates, and writes each user's
        NDCG beside the result
    day : the held-out day, the last day that the served model learns from
    confidence : the settings that the matrices were built with
    lists : the settings of the served lists; the evaluated lists follow `evaluation`
    history_version, window_start : what the matrices were built from
    champion : the version to compare with and to start from; None if there is none
    reference : an older version to compare with; None if there is none
    data : the profile of the day and of the window, for the gate; None if no gate follows
    price_per_hour : the machine's price in the user's currency; None: no cost is computed
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Literal["serve", "score"] = "serve"
    day: date
    confidence: ConfidenceSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    lists: ListsSettings
    history_version: int
    window_start: date
    champion: str | None = None
    reference: str | None = None
    data: DayProfile | None = None
    price_per_hour: float | None = None


class JobSpec(JobDraft):
    """One training job, with everything that the model depends on; the version is named by it.

    A change of `data` or `price_per_hour` alone changes neither the model nor its version.

    inputs : SHA-256 of each file beside the spec, by name
    ids : `ids_digest` of the users and items
    code, packages : what `build_matrix` ran with; the manifest has those of the worker
    """

    version: str
    inputs: dict[str, str]
    ids: str
    code: str
    packages: dict[str, str]


@dataclass(frozen=True)
class JobInputs:
    """What a job reads.

    eligible : bool, (n_items,), the items that a list may contain, in the order of
        ``interactions.items``
    list_inputs : what the lists are built from, in the same order
    """

    interactions: Interactions
    eligible: NDArray[np.bool_]
    list_inputs: ListInputs


def write_job(storage: Storage, draft: JobDraft, inputs: JobInputs) -> JobSpec:
    """Write a job's inputs, then its spec, under ``jobs/day=…``; returns the spec.

    The same job gives the same bytes and the same version.
    """
    contents = _contents(inputs)
    unnamed = JobSpec(
        **dict(draft),
        version="",
        inputs={name: serialization.sha256(content) for name, content in contents.items()},
        ids=ids_digest(inputs.interactions.users, inputs.interactions.items),
        code=code_digest(),
        packages=package_versions(),
    )
    named_by = unnamed.model_dump(mode="json", exclude={"version", "price_per_hour", "data"})
    digest = serialization.sha256(json.dumps(named_by, sort_keys=True).encode())
    spec = unnamed.model_copy(update={"version": f"{draft.day:%Y%m%d}-{digest[:10]}"})
    for name, content in contents.items():
        storage.put(paths.job(spec.day, name), content)
    storage.write_json(paths.job(spec.day, files.SPEC), spec.model_dump(mode="json"))
    return spec


def read_spec(storage: Storage, day: date) -> JobSpec:
    """The job spec of a day.

    Raises StorageError if it is missing, ModelError if it is not a job spec.
    """
    path = paths.job(day, files.SPEC)
    data = storage.get(path)
    try:
        return JobSpec.model_validate_json(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
        )
        raise ModelError(
            f"{storage.url(path)} is no job spec ({problems}): run build_matrix again"
        ) from error


def read_inputs(storage: Storage, spec: JobSpec) -> JobInputs:
    """The inputs of a job.

    Raises ModelError if a file is not the one that the spec names, or if the files do not fit
    together; StorageError if one is missing.
    """
    users = serialization.to_frame(_read(storage, spec, files.USER_TABLE))
    items = serialization.to_frame(_read(storage, spec, files.ITEM_TABLE))
    train, full, holdout = (
        serialization.to_matrix(_read(storage, spec, name))
        for name in (files.TRAIN, files.FULL, files.HOLDOUT)
    )
    if {train.shape, full.shape, holdout.shape} != {(users.height, items.height)}:
        raise ModelError(
            f"the matrices of {spec.day} have shapes {train.shape}, {full.shape}, {holdout.shape}, "
            f"but there are {users.height:,} users and {items.height:,} items: "
            "run build_matrix again"
        )
    pinned, trending = (
        serialization.to_frame(_read(storage, spec, name))
        for name in (files.PINNED, files.TRENDING_TABLE)
    )
    baskets = serialization.to_arrays(_read(storage, spec, files.BASKETS))
    shape = (len(baskets["weights"]), items.height)
    cells = np.ones(len(baskets["indices"]), dtype=bool), baskets["indices"], baskets["indptr"]
    return JobInputs(
        Interactions(
            users["user_id"], items["item_id"], train, full, holdout, users["buyer"].to_numpy()
        ),
        items["eligible"].to_numpy(),
        ListInputs(
            items["category"],
            pinned,
            Baskets(sparse.csr_matrix(cells, shape=shape), baskets["weights"]),
            trending,
        ),
    )


def ids_digest(users: pl.Series, items: pl.Series) -> str:
    """SHA-256 of the user and item ids in their order.

    It shows whether a version's ids are those of the matrices that it was trained on.
    """
    ids = pl.concat([users.alias("id"), pl.Series("id", [""]), items.alias("id")])
    return serialization.sha256(ids.str.join("\n").item().encode())


def _contents(inputs: JobInputs) -> dict[str, bytes]:
    """The files of a job's inputs, by name."""
    data, lists = inputs.interactions, inputs.list_inputs
    items = {"item_id": data.items, "eligible": inputs.eligible, "category": lists.category}
    baskets = {
        "indptr": lists.baskets.items.indptr,
        "indices": lists.baskets.items.indices,
        "weights": lists.baskets.weights,
    }
    return {
        files.TRAIN: serialization.from_matrix(data.train),
        files.FULL: serialization.from_matrix(data.full),
        files.HOLDOUT: serialization.from_matrix(data.holdout),
        files.USER_TABLE: serialization.from_frame(
            pl.DataFrame({"user_id": data.users, "buyer": data.buyers})
        ),
        files.ITEM_TABLE: serialization.from_frame(pl.DataFrame(items)),
        files.PINNED: serialization.from_frame(lists.pinned),
        files.BASKETS: serialization.from_arrays(baskets),
        files.TRENDING_TABLE: serialization.from_frame(lists.trending),
    }


def _read(storage: Storage, spec: JobSpec, name: str) -> bytes:
    """The content of one of the job's inputs."""
    path = paths.job(spec.day, name)
    data = storage.get(path)
    if serialization.sha256(data) != spec.inputs.get(name):
        raise ModelError(
            f"{storage.url(path)} is not the file that the job spec names (its SHA-256 differs): "
            "run build_matrix again"
        )
    return data
