"""Metrics of a run that the gate blesses."""

import copy
from typing import Any


def metrics() -> dict[str, Any]:
    counts = {"rows": 40_000, "users": 900, "items": 250, "gap": 1}
    ratios = {"rows_per_user": 44.4, "repeats": 1.2}
    shares = {"quarantine_share": 0.02, "bot_share": 0.15, "ignored_share": 0.4}
    shares |= {"conversions_rejected_share": 0.02}
    nulls = {"user_agent": 0.01, "ip": 1.0, "role": 0.97}
    catalogue = {"eligible": 280, "unmanaged_share": 0.05, "known_share": 0.98}
    data: dict[str, Any] = {
        name: {"value": value, "usual": value, "spread": None}
        for name, value in (counts | ratios | shares | catalogue).items()
    }
    data["nulls"] = {name: {"value": null, "usual": null} for name, null in nulls.items()}
    data |= {"unread_days": [], "window_days": 365, "window_known_share": 0.97, "known_items": 300}
    lists = {
        "counts": {
            "recommendations": 5_000,
            "similar": 300,
            "bought_together": 120,
            "categories": 12,
        },
        "users": 5_000,
        "top_n": 20,
        "full_share": 0.98,
        "popular": 20,
        "lost_share": 0.01,
        "changed_settings": [],
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
        "data": {**data, "window_rows": 900_000},
        "champion_data": {**copy.deepcopy(data), "window_rows": 880_000},
        "lists": lists,
        "champion_lists": copy.deepcopy(lists),
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
