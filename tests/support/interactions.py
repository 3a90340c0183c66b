"""Events typed by hand, and the confidences that matrices built from them hold."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings

DAY = date(2026, 3, 10)
CONFIDENCE = ConfidenceSettings(
    window_days=30, weights={"view": 1, "cart": 3, "purchase": 5}, half_life_days=10, alpha=16
)
EVALUATION = EvaluationSettings(events=("purchase", "cart"), exclude_seen=True)


def history(*rows: tuple[int, str, str, str]) -> pl.DataFrame:
    """Rows of (days before DAY, user, item, event type)."""
    ages, users, items, types = zip(*rows, strict=True)
    days = [DAY - timedelta(days=age) for age in ages]
    return pl.DataFrame(
        {
            "day": days,
            "user_id": users,
            "item_id": items,
            "event_type": types,
            "event_time": [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in days],
            "quantity": [1] * len(rows),
            "value": [None] * len(rows),
        },
        schema_overrides={"value": pl.Float64},
    )


def cells(matrix, built: Interactions) -> dict[tuple[str, str], float]:
    """The matrix's values by user and item id."""
    coo = matrix.tocoo()
    return {
        (built.users[int(u)], built.items[int(i)]): float(v)
        for u, i, v in zip(coo.row, coo.col, coo.data, strict=True)
    }


def confidences(
    events: pl.DataFrame, side: str = "train", **settings: Any
) -> dict[tuple[str, str], float]:
    """The confidences that these settings give to the events, by user and item id."""
    built = build_interactions(
        events, DAY, ConfidenceSettings(**{**CONFIDENCE.model_dump(), **settings}), EVALUATION
    )
    return cells(getattr(built, side), built)
