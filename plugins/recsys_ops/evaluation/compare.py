"""Challenger, champion, reference and popularity on the same users and the same held-out behaviour."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.evaluation.metrics import Scores, lower_bound, score

# different items met before the held-out behaviour
LIGHT, HEAVY = 3, 11
BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True)
class RefitLists:
    """What the refitted model, the one that is served, says beside the evaluated one.

    lists : int32, (n_users, K), as those of `Evaluation`: the same users, items and rules
    norms : (2, 2), the mean length of the users' and of the items' factors, of the evaluated model and of the served one
    """

    lists: NDArray[np.int32]
    norms: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """The top-K lists to compare; rows are users, values item indices, best first, padded with −1.

    users : int32, (n_users,), the row of each in the model's ``users.parquet``
    met : int32, (n_users,), how many different items each had met before · buyers : bool, (n_users,), who had bought before
    challenger, popularity, champion, reference : int32, (n_users, K); the last two are None where there is none
    relevant : csr_matrix, bool, (n_users, n_items), what each liked in the held-out behaviour
    most_popular : int32, (K,), the most popular items overall
    information : float64, (n_items,), `metrics.self_information`
    served : None before the refit
    """

    users: NDArray[np.int32]
    met: NDArray[np.int32]
    buyers: NDArray[np.bool_]
    challenger: NDArray[np.int32]
    popularity: NDArray[np.int32]
    champion: NDArray[np.int32] | None
    reference: NDArray[np.int32] | None
    relevant: sparse.csr_matrix
    most_popular: NDArray[np.int32]
    information: NDArray[np.float64]
    served: RefitLists | None = None

    def scores(self, k: tuple[int, ...]) -> dict[str, Scores]:
        """Every model's lists, judged, by the model's name."""
        lists = {
            "challenger": self.challenger,
            "popularity": self.popularity,
            "champion": self.champion,
            "reference": self.reference,
        }
        return {
            name: score(
                found,
                self.relevant,
                k,
                most_popular=self.most_popular,
                information=self.information,
            )
            for name, found in lists.items()
            if found is not None
        }


def compare_models(found: Evaluation, *, k: tuple[int, ...], seed: int) -> dict[str, Any]:
    """The figures the gate decides on, JSON-able: every metric of every model, also of segments of the users, and confidence
    bounds at the last of `k`.

    Segments: who had met fewer than 3 different items before is ``new``, fewer than 11 ``light``, else ``heavy``; ``buyers``
    had bought something.
    """
    scored = found.scores(k)
    segments = {
        "new": found.met < LIGHT,
        "light": (found.met >= LIGHT) & (found.met < HEAVY),
        "heavy": found.met >= HEAVY,
        "buyers": found.buyers,
    }

    def against(other: str) -> dict[str, float] | None:
        if other not in scored:
            return None
        differences = scored["challenger"].ndcg[-1] - scored[other].ndcg[-1]
        mean = float(differences.mean()) if len(differences) else 0.0
        return {
            "mean": mean,
            "lower": lower_bound(differences, BOOTSTRAP_DRAWS, seed),
            "upper": -lower_bound(-differences, BOOTSTRAP_DRAWS, seed),
        }

    return {
        "cutoffs": list(k),
        "users": found.relevant.shape[0],
        "items": found.relevant.shape[1],
        **{name: scored[name].metrics() if name in scored else None for name in _MODELS},
        "segments": {name: scored[name].segments(segments) for name in scored},
        "bootstrap": {
            "metric": f"ndcg@{k[-1]}",
            "draws": BOOTSTRAP_DRAWS,
            "seed": seed,
            **{other: against(other) for other in _MODELS[1:]},
        },
        "parity": _parity(found, k[-1]) if found.served else None,
    }


_MODELS = ("challenger", "champion", "popularity", "reference")


def _parity(found: Evaluation, k: int) -> dict[str, float]:
    """overlap : the mean share of a user's first `k` that the served model lists as well · the others: served over evaluated"""
    assert found.served is not None
    ours, theirs = found.challenger[:, :k], found.served.lists[:, :k]
    n_items = found.relevant.shape[1]
    rows = np.arange(len(ours), dtype=np.int64)[:, None] * n_items
    both = np.isin(rows + ours, (rows + theirs)[theirs >= 0]) & (ours >= 0)
    listed = max(1, int(np.count_nonzero(ours >= 0)))
    covered = [int(np.count_nonzero(np.bincount(lists[lists >= 0]))) for lists in (ours, theirs)]
    norms = found.served.norms
    ratios = [
        float(after / before) if before > 0 else 0.0
        for before, after in zip(norms[0], norms[1], strict=True)
    ]
    return {
        "overlap": float(np.count_nonzero(both) / listed),
        "coverage": covered[1] / max(1, covered[0]),
        "user_norm": ratios[0],
        "item_norm": ratios[1],
    }
