"""Metrics of a run that the gate blesses."""

from typing import Any


def metrics() -> dict[str, Any]:
    counts = {"rows": 40_000, "users": 900, "items": 250, "gap": 1}
    ratios = {"rows_per_user": 44.4, "repeats": 1.2}
    shares = {"quarantine_share": 0.02, "bot_share": 0.15}
    data = {
        name: {"value": value, "usual": value, "spread": None}
        for name, value in (counts | ratios | shares).items()
    }
    return {
        "protocol": "next_day",
        "cutoffs": [3, 20],
        "users": 812,
        "items": 300,
        "champion_version": "20260309-0123456789",
        "reference_version": "20260201-0123456789",
        "factors_finite": True,
        "ids_match": True,
        "data": {**data, "window_rows": 900_000, "window_days": 365},
        "champion_data": {**data, "window_rows": 880_000, "window_days": 365},
        "parity": {"overlap": 0.8, "coverage": 1.02, "user_norm": 1.01, "item_norm": 0.99},
        "reference": {"ndcg@3": 0.03, "ndcg@20": 0.050},
        "challenger": {"ndcg@3": 0.03, "ndcg@20": 0.050},
        "popularity": {"ndcg@3": 0.02, "ndcg@20": 0.034},
        "champion": {"ndcg@3": 0.03, "ndcg@20": 0.050},
        "bootstrap": {
            "metric": "ndcg@20",
            "draws": 1000,
            "seed": 1,
            "popularity": {"mean": 0.016, "lower": 0.011},
            "champion": {"mean": 0.0, "lower": -0.002, "upper": -0.0001},
            "reference": {"mean": 0.0, "lower": -0.002, "upper": -0.0001},
        },
    }
