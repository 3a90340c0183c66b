"""The phases of one training job: fit, evaluate, refit, recommend, write.

A change in this module changes `code_digest`, so that the next fit starts cold.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import polars as pl
from scipy import sparse

from recsys_ops.als import gpu
from recsys_ops.als.factors import Factors
from recsys_ops.als.fit import fit, loss, solver
from recsys_ops.als.top_n import top_n
from recsys_ops.als.warm_start import Matched, match, warm_start
from recsys_ops.errors import ModelError
from recsys_ops.evaluation.compare import Evaluation
from recsys_ops.lists.build import (
    bought_together_items,
    evaluation_lists,
    popular_by_category,
    popular_items,
    popularity,
    recommendations,
    served_lists,
    similar_items,
)
from recsys_ops.lists.category_cap import TopN, category_cap
from recsys_ops.models.spec import JobInputs, JobSpec
from recsys_ops.models.version import (
    Manifest,
    RunUsage,
    load_manifest,
    read_factors,
    read_frame,
    write_version,
)
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.checkpoint import Checkpoints

log = logging.getLogger(__name__)

POPULAR_ITEMS = 100


@dataclass(frozen=True)
class EarlierModel:
    """A version of an earlier day, its factors in the rows of this job's users and items."""

    manifest: Manifest
    matched: Matched


@dataclass(frozen=True)
class TrainingRun:
    """One training job; its methods are its phases, in this order.

    champion, reference : None if the spec names none
    """

    spec: JobSpec
    inputs: JobInputs
    champion: EarlierModel | None
    reference: EarlierModel | None
    checkpoints: Checkpoints

    @property
    def started_from(self) -> EarlierModel | None:
        """The champion if the fit starts from its factors; None for a cold start."""
        if self.champion and may_start_from(self.champion.manifest, self.spec):
            return self.champion
        return None

    def fit(self) -> Factors:
        """Factorise the days before the hold-out."""
        training, champion = self.spec.training, self.started_from
        start = warm_start(champion.matched, training) if champion else None
        sweeps = training.warm_iterations if champion else training.iterations
        log.info(
            "solver=%s start=%s sweeps=%d",
            solver(training),
            champion.manifest.version if champion else "cold",
            sweeps,
        )
        return self._sweep("fit", self.inputs.interactions.train, sweeps, start)

    def loss(self, fitted: Factors) -> float:
        """The value that the sweeps minimise, see `recsys_ops.als.fit.loss`."""
        return loss(self.inputs.interactions.train, fitted, self.spec.training)

    def evaluate(self, fitted: Factors) -> Evaluation:
        """Make the lists of challenger, champion, reference and popularity for the hold-out."""
        data, settings = self.inputs.interactions, self.spec.evaluation
        return evaluation_lists(
            data.train,
            data.holdout,
            fitted,
            self.champion.matched if self.champion else None,
            max(settings.cutoffs),
            settings.exclude_seen,
            self._top_n,
            reference=self.reference.matched if self.reference else None,
            buyers=data.buyers,
        )

    def refit(self, fitted: Factors) -> Factors:
        """Continue the fit on all days, the hold-out included: these factors are served."""
        return self._sweep(
            "refit", self.inputs.interactions.full, self.spec.training.refit_iterations, fitted
        )

    def evaluate_refit(
        self, evaluation: Evaluation, fitted: Factors, served: Factors
    ) -> Evaluation:
        """Add to an evaluation the lists of the refitted model, made for the same users."""
        settings = self.spec.evaluation
        lists = served_lists(
            self.inputs.interactions.train,
            evaluation.users,
            fitted,
            served,
            max(settings.cutoffs),
            settings.exclude_seen,
            self._top_n,
        )
        return replace(evaluation, served=lists)

    def recommend(self, served: Factors) -> dict[str, pl.DataFrame]:
        """The frames of the version, by name: ids, and every list that is served."""
        data, lists = self.inputs.interactions, self.inputs.list_inputs
        eligible, settings = self.inputs.eligible, self.spec.lists
        n = settings.top_n
        pinned = lists.pinned.head(n)
        cap = (
            category_cap(lists.category, pinned["category"], settings.max_per_category)
            if settings.max_per_category
            else None
        )
        return {
            "users": pl.DataFrame({"user_id": data.users}),
            "items": pl.DataFrame(
                {"item_id": data.items, "eligible": eligible, "popularity": popularity(data.full)}
            ),
            "recommendations": recommendations(
                served,
                data.users,
                data.items,
                n,
                seen=data.full if settings.exclude_seen else None,
                eligible=eligible,
                pinned=pinned["item_id"],
                cap=cap,
                top_n=self._top_n,
            ),
            "similar": similar_items(
                served.item, data.items, n, eligible=eligible, top_n=self._top_n
            ),
            "bought_together": bought_together_items(
                lists.baskets, data.items, n, settings.bought_together, eligible=eligible
            ),
            "popular": popular_items(
                data.full,
                data.items,
                POPULAR_ITEMS,
                eligible=eligible,
                pinned=lists.pinned["item_id"],
            ),
            "categories": popular_by_category(
                data.full, data.items, lists.category, n, eligible=eligible
            ),
            "trending": lists.trending,
        }

    def write(
        self,
        storage: Storage,
        served: Factors,
        evaluation: Evaluation,
        frames: dict[str, pl.DataFrame],
        measure: Callable[[], RunUsage],
    ) -> None:
        """Write the model version, see `write_version`."""
        champion = self.started_from
        write_version(
            storage,
            self.spec,
            served,
            evaluation,
            frames,
            started_from=champion.manifest if champion else None,
            measure=measure,
        )

    @property
    def _top_n(self) -> TopN:
        training = self.spec.training
        if solver(training) == "gpu":
            return partial(gpu.top_n, max_memory_gib=training.max_gpu_memory_gib)
        return top_n

    def _sweep(
        self, phase: str, user_items: sparse.csr_matrix, sweeps: int, start: Factors | None
    ) -> Factors:
        """Do the sweeps of a phase that its checkpoint does not contain; log and save each."""
        done, start = self.checkpoints.read(phase) or (0, start)
        began = time.monotonic()

        def after_sweep(sweep: int, factors: Callable[[], Factors]) -> None:
            number = done + sweep + 1
            log.info("sweep %d of %d, %.1f s", number, sweeps, time.monotonic() - began)
            self.checkpoints.write(phase, number, factors, last=number == sweeps)

        return fit(
            user_items,
            self.spec.training,
            iterations=sweeps - done,
            factors0=start,
            callback=after_sweep,
        )


def read_earlier_model(
    storage: Storage, version: str | None, spec: JobSpec, inputs: JobInputs
) -> EarlierModel | None:
    """The champion or the reference of a job; None if `version` is None.

    Raises ModelError if the version is missing or damaged, or has learned from the job's day.
    """
    if version is None:
        return None
    manifest = load_manifest(storage, version)
    if manifest.day >= spec.day:
        raise ModelError(
            f"version {version} has learned from {manifest.day}, so it cannot be evaluated on "
            f"{spec.day}: compare with a version of an earlier day"
        )
    users, items = (
        read_frame(storage, manifest, name)[f"{name[:-1]}_id"] for name in ("users", "items")
    )
    data = inputs.interactions
    return EarlierModel(
        manifest, match(read_factors(storage, manifest), users, items, data.users, data.items)
    )


def may_start_from(champion: Manifest, spec: JobSpec) -> bool:
    """Whether a few sweeps from the champion's factors suffice.

    They do if the settings of the fit and the code are the same, and if the last cold start was
    less than `cold_every_days` days ago: the effect of a bad day must not last for ever.
    """
    same = all(
        getattr(champion.spec, name) == getattr(spec, name)
        for name in ("training", "confidence", "code")
    )
    return same and (spec.day - champion.fitted_cold).days < spec.training.cold_every_days
