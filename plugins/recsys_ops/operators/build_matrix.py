"""The window of history as confidence matrices, and the job that the worker will run on them."""

import logging
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import ConfidenceSettings, ListsSettings, Settings, SlowBotSettings
from recsys_ops.storage import paths
from recsys_ops.tuning.proposal import record_first_use, with_adopted_proposal

if TYPE_CHECKING:
    import polars as pl
    from airflow.sdk import Context

    from recsys_ops.interactions.window import Window
    from recsys_ops.lists.inputs import ListInputs
    from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)


class BuildMatrixOperator(DayOperator):
    """Pin the history's version, turn its window into matrices and write the job spec that names the model version."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.history.table import current_version
        from recsys_ops.interactions.day_profile import profile_day
        from recsys_ops.interactions.matrix import build_interactions
        from recsys_ops.interactions.window import first_window_day
        from recsys_ops.models.deployments import champion_deployment, reference_deployment
        from recsys_ops.models.spec import JobDraft, JobInputs, write_job
        from recsys_ops.source.catalogue import eligible_items

        store = open_storage(settings)
        settings, study = with_adopted_proposal(store, settings, day)
        products = store.read_parquet(paths.catalogue(day))
        eligible = eligible_items(products, settings.lists.exclude_categories)
        window_start = first_window_day(day, settings.confidence)
        version = current_version(store)
        window = read_window(
            store, day, settings.confidence, settings.cleaning.slow_bots, version
        )
        store.write_parquet(paths.quarantine(self.name, day), window.slow_bots)
        events, people = window.events, window.human_events
        interactions = build_interactions(people, day, settings.confidence, settings.evaluation)
        shop = _shop(people, products, eligible, interactions.items, day, settings.lists)
        # by the other protocols a model of an earlier run has learnt what is held out
        fair = settings.evaluation.protocol == "next_day"
        before, older = (
            (champion_deployment(store, day), reference_deployment(store, day))
            if fair
            else (None, None)
        )
        draft = JobDraft(
            day=day,
            confidence=settings.confidence,
            training=settings.training,
            evaluation=settings.evaluation,
            lists=settings.lists,
            history_version=version,
            window_start=window_start,
            champion=before["version"] if before else None,
            reference=older["version"] if older and older != before else None,
            data=profile_day(people, day, window_start, _shares(store, day)),
            price_per_hour=settings.worker.price_per_hour,
        )
        is_eligible = interactions.items.is_in(eligible["item_id"].implode()).to_numpy()
        spec = write_job(store, draft, JobInputs(interactions, is_eligible, shop))
        if study:
            record_first_use(store, study, day, spec.version)
        return {
            "events": events.height,
            "first_day": str(events["day"].min()),
            "events_left_out": events.height - people.height,
            "users_left_out": dict(window.slow_bots["reason"].value_counts(sort=True).iter_rows()),
            "users": interactions.full.shape[0],
            "items": interactions.full.shape[1],
            "cells": interactions.full.nnz,
            "holdout_pairs": interactions.holdout.nnz,
            "baskets": len(shop.baskets.weights),
            "trending": shop.trending.height,
            "pinned": shop.pinned.height,
            "history_version": version,
            "champion": spec.champion,
            "reference": spec.reference,
            "version": spec.version,
            "proposal": study and str(study),
        }


def read_window(
    store: "Storage",
    day: date,
    confidence: ConfidenceSettings,
    bots: SlowBotSettings,
    history_version: int,
) -> "Window":
    """The window that ends with `day`, as of a version of the history."""
    from recsys_ops.history.encoded import read_encoded_events
    from recsys_ops.interactions.window import first_window_day, without_slow_bots

    events = read_encoded_events(
        store, first_window_day(day, confidence), day, version=history_version
    )
    return without_slow_bots(events, bots)


def _shop(
    people: "pl.DataFrame",
    products: "pl.DataFrame",
    eligible: "pl.DataFrame",
    items: "pl.Series",
    day: date,
    lists: ListsSettings,
) -> "ListInputs":
    """What the lists need beside the matrices, for their `items`; a pinned item that is not eligible is named in the log."""
    import polars as pl

    from recsys_ops.lists.bought_together import build_baskets
    from recsys_ops.lists.inputs import ListInputs
    from recsys_ops.lists.trending import trending

    wanted = pl.DataFrame(
        {"item_id": list(dict.fromkeys(lists.pinned_items))}, schema={"item_id": pl.String}
    )
    pinned = wanted.join(
        eligible.select("item_id", "category"), on="item_id", maintain_order="left"
    )
    if missing := [name for name in wanted["item_id"] if name not in pinned["item_id"]]:
        log.warning(
            "lists.pinned_items: not shown, as the catalogue of %s does not have them for sale: %s",
            day,
            ", ".join(missing),
        )
    known = pl.DataFrame({"item_id": items}).join(
        products.select("item_id", "category"), on="item_id", how="left", maintain_order="left"
    )
    bought = build_baskets(people, items, day, lists.bought_together)
    return ListInputs(
        known["category"], pinned, bought, trending(people, eligible["item_id"], day, lists)
    )


def _shares(store: "Storage", day: date) -> dict[date, dict[str, float]]:
    """What the cleaning of `day` and of the four weeks before rejected, by day; a day that was not run itself is missing."""
    from recsys_ops.interactions.day_profile import REJECTING_STEPS, USUAL_DAYS, rejected_shares

    found = {}
    for at in (day - timedelta(days=n) for n in range(USUAL_DAYS + 1)):
        written = [paths.report(step, at) for step in REJECTING_STEPS]
        if all(store.exists(path) for path in written):
            shares = rejected_shares(
                {step: store.read_json(path) for step, path in zip(REJECTING_STEPS, written, strict=True)}
            )
            if shares is not None:
                found[at] = shares
    return found
