"""Challenger, champion and popularity on the same users and the same held-out day."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.evaluation.metrics import lower_bound, ndcg_by_user, ranking_metrics


@dataclass(frozen=True)
class Evaluation:
    """The top-K lists to compare; rows are users, values item indices, best first, padded with −1.

    users : int32, (n_users,), the row of each in the model's ``users.parquet``
    challenger, popularity, champion : int32, (n_users, K); champion is None where there is none
    relevant : csr_matrix, bool, (n_users, n_items), what each liked on the held-out day
    most_popular : int32, (K,), the most popular items overall
    """

    users: NDArray[np.int32]
    challenger: NDArray[np.int32]
    popularity: NDArray[np.int32]
    champion: NDArray[np.int32] | None
    relevant: sparse.csr_matrix
    most_popular: NDArray[np.int32]


def compare(
    lists: Evaluation, *, k: tuple[int, ...], champion_version: str | None, factors_finite: bool, draws: int, seed: int
) -> dict[str, Any]:
    """The figures the gate decides on, JSON-able: every metric of every model, and confidence bounds at the last of `k`."""
    scored = {"challenger": lists.challenger, "popularity": lists.popularity, "champion": lists.champion}
    per_user = {name: ndcg_by_user(found, lists.relevant, k[-1]) for name, found in scored.items() if found is not None}

    def against(other: str) -> dict[str, float]:
        differences = per_user["challenger"] - per_user[other]
        mean = float(differences.mean()) if len(differences) else 0.0
        return {"mean": mean, "lower": lower_bound(differences, draws, seed)}

    return {
        "k": list(k),
        "users": lists.relevant.shape[0],
        "items": lists.relevant.shape[1],
        "champion_version": champion_version,
        "factors_finite": factors_finite,
        **{
            name: None if found is None else ranking_metrics(found, lists.relevant, k, most_popular=lists.most_popular)
            for name, found in scored.items()
        },
        "bootstrap": {
            "metric": f"ndcg@{k[-1]}",
            "draws": draws,
            "seed": seed,
            "popularity": against("popularity"),
            "champion": against("champion") if "champion" in per_user else None,
        },
    }
