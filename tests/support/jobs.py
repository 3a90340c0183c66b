"""A small shop whose users have known tastes, and a training job made from it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_ops.interactions.day_profile import CatalogueProfile, profile_day
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.lists.bought_together import build_baskets
from recsys_ops.lists.inputs import ListInputs
from recsys_ops.lists.trending import trending
from recsys_ops.models.spec import JobDraft, JobInputs, JobSpec, write_job
from recsys_ops.settings import (
    ConfidenceSettings,
    EvaluationSettings,
    ListsSettings,
    TrainingSettings,
)
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

DAY = date(2026, 3, 10)


CONFIDENCE = ConfidenceSettings(
    weights={"view": 1, "wishlist": 2, "cart": 3, "checkout": 3, "purchase": 5}, window_days=30
)


LISTS = ListsSettings(top_n=10)


def history(
    users: int = 400, items: int = 160, days: int = 15, seed: int = 1, last: date = DAY
) -> pl.DataFrame:
    """Events of users with one of eight tastes.

    8 of 10 events of a user are of its own taste. In each taste a few items are far more popular
    than the others.
    """
    rng = np.random.default_rng(seed)
    n = users * days * 2
    user = rng.integers(0, users, n)
    taste = np.where(rng.random(n) < 0.8, user % 8, rng.integers(0, 8, n))
    item = taste + 8 * np.minimum(rng.geometric(0.12, n) - 1, items // 8 - 1)
    return pl.DataFrame(
        {
            "day": [last - timedelta(days=int(age)) for age in rng.integers(0, days, n)],
            "user_id": [f"user-{u}" for u in user],
            "item_id": [f"item-{i}" for i in item],
            "event_type": rng.choice(["view", "cart", "purchase"], n, p=[0.6, 0.25, 0.15]),
        }
    )


@pytest.fixture
def make_job(storage: Storage) -> Callable[..., JobSpec]:
    """A function that writes the job of `day` from `events` and returns its spec.

    Items whose number ends in 5 are not for sale. An item's category is the last digit of its
    number; items whose number ends in 9 have none.
    """

    def make(
        events: pl.DataFrame | None = None,
        day: date = DAY,
        champion: str | None = None,
        reference: str | None = None,
        price: float | None = None,
        lists: ListsSettings = LISTS,
        **training: Any,
    ) -> JobSpec:
        evaluation = EvaluationSettings()
        events = history() if events is None else events
        interactions, start = (
            build_interactions(events, day, CONFIDENCE, evaluation),
            first_window_day(day, CONFIDENCE),
        )
        items = interactions.items
        eligible = ~items.str.ends_with("5").to_numpy()
        category = items.str.tail(1).replace("9", None)
        categories = pl.DataFrame({"item_id": items, "category": category})
        pinned = pl.DataFrame({"item_id": lists.pinned_items}, schema={"item_id": pl.String})
        timed = events.with_columns(second=pl.col("day").cast(pl.Datetime).dt.epoch("s"))
        list_inputs = ListInputs(
            category,
            pinned.join(categories, on="item_id", how="left", maintain_order="left"),
            build_baskets(timed, items, day, lists.bought_together),
            trending(events, items.filter(pl.Series(eligible)), day, lists),
        )
        draft = JobDraft(
            day=day,
            confidence=CONFIDENCE,
            training=TrainingSettings(**training),
            evaluation=evaluation,
            lists=lists,
            history_version=7,
            window_start=start,
            champion=champion,
            reference=reference,
            data=profile_day(
                events,
                day,
                start,
                {},
                catalogue=CatalogueProfile(items, int(eligible.sum()), 0.0, len(items)),
            ),
            price_per_hour=price,
        )
        return write_job(storage, draft, JobInputs(interactions, eligible, list_inputs))

    return make


PLUGINS = Path(__file__).parents[2] / "plugins"


MakeJob = Callable[..., JobSpec]


def spec_url(storage: Storage) -> str:
    return storage.url(paths.job(DAY, "spec.json"))


def result(storage: Storage) -> dict:
    return storage.read_json(paths.job(DAY, "result.json"))


def contents(storage: Storage, version: str) -> dict[str, bytes]:
    return {path: storage.get(path) for path in storage.list(f"models/{version}")}


def without_run(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a version without what its run took."""

    def stripped(path: str, data: bytes) -> bytes:
        return (
            json.dumps(json.loads(data) | {"run": None}).encode()
            if path.endswith("/manifest.json")
            else data
        )

    return {path: stripped(path, data) for path, data in files.items()}


def delete_models(storage: Storage) -> None:
    for path in storage.list("models"):
        storage.delete(path)


def start_worker(storage: Storage) -> subprocess.Popen[str]:
    """Start the worker as a launcher does; its log comes on standard error."""
    command = [sys.executable, "-m", "recsys_ops.worker", spec_url(storage)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PLUGINS)}
    )
