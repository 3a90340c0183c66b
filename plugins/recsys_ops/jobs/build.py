"""Build a training job from the window of the history: of a day's retraining, or of a trial."""

import logging
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import polars as pl
from scipy import sparse

from recsys_ops.cleaning.slow_bots import Window, without_slow_bots
from recsys_ops.errors import DamagedError, DataError
from recsys_ops.history.encoded import check_superseded, read_encoded_events
from recsys_ops.history.table import current_version
from recsys_ops.ingest.commit import read_days
from recsys_ops.ingest.day_counts import rejected_shares
from recsys_ops.interactions.day_profile import (
    USUAL_DAYS,
    CatalogueProfile,
    DayProfile,
    profile_day,
)
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.lists.bought_together import build_baskets
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.lists.trending import trending
from recsys_ops.models.deployments import champion_deployment, reference_deployment
from recsys_ops.models.spec import JobDraft, JobInputs, JobSpec, write_job
from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    ListsSettings,
    Settings,
    TrainingSettings,
)
from recsys_ops.source.catalogue import eligible_items, unmanaged_share
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage
from recsys_ops.tuning.proposal import record_first_use, with_adopted_proposal

log = logging.getLogger(__name__)

# the slow bots of a day's window are in the quarantine under this name
QUARANTINE_NAME = "build_matrix"

# by task, which figures of its report the day profile compares over 28 days
_COMPARED = {
    "extract_catalogue": ("eligible", "unmanaged_share"),
    "build_matrix": ("known_share",),
}


def build_day_job(storage: Storage, day: date, settings: Settings) -> dict[str, Any]:
    """Write the job that trains and serves the model of a day; returns its figures.

    Settings of an adopted tuning proposal replace those of `settings`. The slow bots of the window
    are written into the quarantine.

    Raises DataError if there is nothing to train on or nothing to recommend, also if the window and
    the catalogue have no item in common.
    """
    settings, study = with_adopted_proposal(storage, settings, day)
    products = storage.read_parquet(current_generation(storage, paths.CATALOGUE, day))
    eligible = eligible_items(
        products,
        settings.lists.exclude_categories,
        sell_unmanaged_stock=settings.lists.sell_unmanaged_stock,
    )
    history_version = current_version(storage)
    window, superseded = read_window(storage, day, settings, settings.confidence, history_version)
    storage.write_parquet(paths.quarantine(QUARANTINE_NAME, day), window.slow_bots)
    events = window.human_events
    interactions = build_interactions(events, day, settings.confidence, settings.evaluation)
    is_eligible = interactions.items.is_in(eligible["item_id"].implode())
    if not is_eligible.any():
        raise _nothing_to_list(interactions.items, eligible["item_id"], day)
    list_inputs = _list_inputs(events, products, eligible, interactions.items, day, settings.lists)
    profile = _profile(storage, events, products, interactions.items, day, settings)
    profile = profile.model_copy(update={"superseded_rows": superseded})
    champion, reference = _earlier_versions(storage, day, settings)
    draft = JobDraft(
        day=day,
        confidence=settings.confidence,
        training=settings.training,
        evaluation=settings.evaluation,
        lists=settings.lists,
        history_version=history_version,
        window_start=first_window_day(day, settings.confidence),
        champion=champion,
        reference=reference,
        data=profile,
        price_per_hour=settings.worker.price_per_hour,
    )
    inputs = JobInputs(interactions, is_eligible.to_numpy(), list_inputs)
    spec = write_job(storage, draft, inputs)
    if study:
        record_first_use(storage, study, day, spec.version)
    return {
        "events": window.events.height,
        "events_superseded": superseded,
        "first_day": str(window.events["day"].min()),
        "events_left_out": window.events.height - events.height,
        "users_left_out": dict(window.slow_bots["reason"].value_counts(sort=True).iter_rows()),
        "users": interactions.full.shape[0],
        "items": interactions.full.shape[1],
        "eligible": profile.eligible.value,
        "known_share": profile.known_share.value,
        "cells": interactions.full.nnz,
        "holdout_pairs": interactions.holdout.nnz,
        "baskets": len(list_inputs.baskets.weights),
        "trending": list_inputs.trending.height,
        "pinned": list_inputs.pinned.height,
        "history_version": history_version,
        "champion": spec.champion,
        "reference": spec.reference,
        "version": spec.version,
        "proposal": study and str(study),
    }


def build_trial_job(
    storage: Storage,
    trial_storage: Storage,
    day: date,
    settings: Settings,
    *,
    training: TrainingSettings,
    confidence: ConfidenceSettings,
    evaluation: EvaluationSettings,
    history_version: int,
) -> JobSpec:
    """Write a job that only fits and evaluates the settings of a trial; returns its spec.

    storage : with the history
    trial_storage : where the job is written
    day : the held-out day
    """
    window, _ = read_window(storage, day, settings, confidence, history_version)
    interactions = build_interactions(window.human_events, day, confidence, evaluation)
    draft = JobDraft(
        purpose="score",
        day=day,
        confidence=confidence,
        training=training,
        evaluation=evaluation,
        lists=settings.lists,
        history_version=history_version,
        window_start=first_window_day(day, confidence),
        data=profile_day(window.events, day, first_window_day(day, confidence), {}),
        price_per_hour=settings.worker.price_per_hour,
    )
    # without lists to serve, the matrix of the refit and the inputs of the lists stay empty
    empty = sparse.csr_matrix(interactions.full.shape, dtype="float32")
    inputs = JobInputs(
        replace(interactions, full=empty),
        interactions.items.is_not_null().to_numpy(),
        ListInputs.empty(len(interactions.items)),
    )
    return write_job(trial_storage, draft, inputs)


def read_window(
    storage: Storage,
    day: date,
    settings: Settings,
    confidence: ConfidenceSettings,
    history_version: int,
) -> tuple[Window, int]:
    """The window that ends with `day`, from one version of the history.

    Also returns the number of its rows that a later day's rows supersede. Raises DataError where
    that are implausibly many.
    """
    first = first_window_day(day, confidence)
    events = read_encoded_events(storage, first, day, version=history_version)
    superseded = check_superseded(storage, events, first, day, version=history_version)
    return without_slow_bots(events, settings.cleaning.slow_bots), superseded


def _earlier_versions(
    storage: Storage, day: date, settings: Settings
) -> tuple[str | None, str | None]:
    """The champion and the reference to compare with; None if there is none.

    With any protocol but `next_day`, an earlier model has learned from the hold-out, and a
    comparison would not be fair.
    """
    if settings.evaluation.protocol != "next_day":
        return None, None
    champion, reference = champion_deployment(storage, day), reference_deployment(storage, day)
    return (
        champion["version"] if champion else None,
        reference["version"] if reference and reference != champion else None,
    )


def _list_inputs(
    events: pl.DataFrame,
    products: pl.DataFrame,
    eligible: pl.DataFrame,
    items: pl.Series,
    day: date,
    settings: ListsSettings,
) -> ListInputs:
    """What the lists are built from, for the `items` of the matrices.

    Pinned items that are not eligible are left out and named in the log.
    """
    wanted = pl.DataFrame(
        {"item_id": list(dict.fromkeys(settings.pinned_items))}, schema={"item_id": pl.String}
    )
    pinned = wanted.join(
        eligible.select("item_id", "category"), on="item_id", maintain_order="left"
    )
    if missing := [item for item in wanted["item_id"] if item not in pinned["item_id"]]:
        log.warning(
            "lists.pinned_items: not shown, because the catalogue of %s does not have them for "
            "sale: %s",
            day,
            ", ".join(missing),
        )
    categories = pl.DataFrame({"item_id": items}).join(
        products.select("item_id", "category"), on="item_id", how="left", maintain_order="left"
    )
    return ListInputs(
        categories["category"],
        pinned,
        build_baskets(events, items, day, settings.bought_together),
        trending(events, eligible["item_id"], day, settings),
    )


def _nothing_to_list(items: pl.Series, eligible: pl.Series, day: date) -> DataError:
    return DataError(
        f"none of the window's {len(items):,} items is among the {len(eligible):,} eligible items "
        f"of the catalogue of {day}: no list would have an item. The history has ids such as "
        f"{items[0]!r}, the catalogue such as {eligible.min()!r}. If they are written differently, "
        "correct include/sql/extract_catalogue.sql or include/contract.yaml"
    )


def _profile(
    storage: Storage,
    events: pl.DataFrame,
    products: pl.DataFrame,
    items: pl.Series,
    day: date,
    settings: Settings,
) -> DayProfile:
    """The profile of the day, its window and its catalogue; `items` are those of the matrices."""
    days = [day - timedelta(days=age) for age in range(USUAL_DAYS + 1)]
    in_excluded = pl.col("category").is_in(settings.lists.exclude_categories).fill_null(False)
    listable = products.filter(~in_excluded)["item_id"]
    catalogue = CatalogueProfile(
        items=products["item_id"],
        eligible=eligible_items(
            products, sell_unmanaged_stock=settings.lists.sell_unmanaged_stock
        ).height,
        unmanaged_share=unmanaged_share(products),
        known_items=int(items.is_in(listable.implode()).sum()),
    )
    return profile_day(
        events,
        day,
        first_window_day(day, settings.confidence),
        _reported(storage, days),
        catalogue=catalogue,
        read_days=read_days(storage, days[-1], day),
    )


def _reported(storage: Storage, days: list[date]) -> dict[date, dict[str, float]]:
    """The figures of the runs of `days` that a profile is compared with, from their reports."""
    reported = rejected_shares(storage, days)
    for task, names in _COMPARED.items():
        for day in days:
            if storage.exists(path := paths.report(task, day)):
                try:
                    figures = storage.read_record(path)
                except DamagedError as error:
                    log.warning("the figures of %s are left out: %s", day, error)
                    continue
                compared = {name: figures[name] for name in names if figures.get(name) is not None}
                reported.setdefault(day, {}).update(compared)
    return reported
