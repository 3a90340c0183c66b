"""A small shop with known tastes, and a job written from it."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_ops import matrix
from recsys_ops.evaluation.day import day_facts
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings, ListsSettings, TrainingSettings
from recsys_ops.storage import Storage
from recsys_ops.worker.spec import JobSpec, Shop, write_job
from recsys_ops.worker.together import baskets
from recsys_ops.worker.trending import trending

DAY = date(2026, 3, 10)
CONFIDENCE = ConfidenceSettings(weights={"view": 1, "wishlist": 2, "cart": 3, "checkout": 3, "purchase": 5}, window_days=30)
LISTS = ListsSettings(top_n=10)


def history(users: int = 400, items: int = 160, days: int = 15, seed: int = 1, last: date = DAY) -> pl.DataFrame:
    """Eight tastes; 8 of 10 events are within a user's own, and within each a few items are far more popular."""
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
    """Write the job of `day` from `events`; returns its spec. Items whose number ends in 5 are not for sale.

    An item's category is the last digit of its number; those that end in 9 have none.
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
        interactions, start = matrix.build(events, day, CONFIDENCE, evaluation), matrix.window_start(day, CONFIDENCE)
        items = interactions.items
        eligible = ~items.str.ends_with("5").to_numpy()
        category = items.str.tail(1).replace("9", None)
        known = pl.DataFrame({"item_id": items, "category": category})
        pinned = pl.DataFrame({"item_id": lists.pinned_items}, schema={"item_id": pl.String})
        timed = events.with_columns(second=pl.col("day").cast(pl.Datetime).dt.epoch("s"))
        shop = Shop(
            category,
            pinned.join(known, on="item_id", how="left", maintain_order="left"),
            baskets(timed, items, day, lists.together),
            trending(events, items.filter(pl.Series(eligible)), day, lists),
        )
        return write_job(
            storage,
            day,
            interactions,
            eligible,
            confidence=CONFIDENCE,
            training=TrainingSettings(**training),
            evaluation=evaluation,
            lists=lists,
            champion=champion,
            history_version=7,
            window_start=start,
            reference=reference,
            data=day_facts(events, day, start, {}),
            gpu_price_per_hour=price,
            shop=shop,
        )

    return make
