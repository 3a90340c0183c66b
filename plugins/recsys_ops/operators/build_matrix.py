"""The window of history as confidence matrices, and the job that the worker will run on them."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths
from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class BuildMatrixOperator(DayOperator):
    """Pin the history's version, turn its window into matrices and write the job spec that names the model version."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops import coded, history, matrix
        from recsys_ops.cleaning.window_bots import judge_window
        from recsys_ops.serving.deployments import champion
        from recsys_ops.source import catalogue
        from recsys_ops.worker.spec import write_job

        store = storage(settings)
        eligible = catalogue.eligible(store.read_parquet(paths.catalogue(day)))
        window_start = matrix.window_start(day, settings.confidence)
        version = history.version(store)
        events = coded.read(store, window_start, day, version=version)
        left_out = judge_window(events, settings.cleaning.bots.window)
        store.write_parquet(paths.quarantine(self.name, day), left_out)
        people = events.filter(~events["user_id"].is_in(left_out["user_id"].cast(events["user_id"].dtype).implode()))
        interactions = matrix.build(people, day, settings.confidence, settings.evaluation)
        before = champion(store, day)
        spec = write_job(
            store,
            day,
            interactions,
            interactions.items.is_in(eligible["item_id"].implode()).to_numpy(),
            confidence=settings.confidence,
            training=settings.training,
            evaluation=settings.evaluation,
            serving=settings.serving,
            champion=before["version"] if before else None,
            history_version=version,
            window_start=window_start,
            gpu_price_per_hour=settings.worker.gpu_price_per_hour,
        )
        return {
            "events": events.height,
            "first_day": str(events["day"].min()),
            "events_left_out": events.height - people.height,
            "users_left_out": dict(left_out["reason"].value_counts(sort=True).iter_rows()),
            "users": interactions.full.shape[0],
            "items": interactions.full.shape[1],
            "cells": interactions.full.nnz,
            "holdout_pairs": interactions.holdout.nnz,
            "history_version": version,
            "champion": spec.champion,
            "version": spec.version,
        }
