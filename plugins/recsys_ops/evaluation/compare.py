"""Challenger, champion, reference and popularity on the same users and the same hold-out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.evaluation.metrics import Scores, lower_bound, score

# segments begin at this many different items before the hold-out
LIGHT, HEAVY = 3, 11
BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True)
class RefitLists:
    """The lists of the refitted model, which is served, beside those of the evaluated model.

    lists : int32, (n_users, K), as those of `Evaluation`, for the same users from the same items
    norms : float64, (2, 2), rows: the evaluated and the served model; columns: the mean length of
        the users' and of the items' factors
    """

    lists: NDArray[np.int32]
    norms: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """The top-K lists to compare; rows are users, values item indices, best first, padded with −1.

    users : int32, (n_users,), the row of each in the model's ``users.parquet``
    n_items_before : int32, (n_users,), how many different items each has before the hold-out
    buyers : bool, (n_users,), who bought something before the hold-out
    challenger, popularity : int32, (n_users, K)
    champion, reference : the same, None where there is no such version
    relevant : csr_matrix, bool, (n_users, n_items), what each liked in the hold-out
    most_popular : int32, (K,), the most popular items of all users
    information : float64, (n_items,), `metrics.self_information`
    served : None before the refit
    """

    users: NDArray[np.int32]
    n_items_before: NDArray[np.int32]
    buyers: NDArray[np.bool_]
    challenger: NDArray[np.int32]
    popularity: NDArray[np.int32]
    champion: NDArray[np.int32] | None
    reference: NDArray[np.int32] | None
    relevant: sparse.csr_matrix
    most_popular: NDArray[np.int32]
    information: NDArray[np.float64]
    served: RefitLists | None = None

    def scores(self, cutoffs: tuple[int, ...]) -> dict[str, Scores]:
        """The scores of every model's lists, by the model's name."""
        lists_by_model = {
            "challenger": self.challenger,
            "popularity": self.popularity,
            "champion": self.champion,
            "reference": self.reference,
        }
        return {
            name: score(
                lists,
                self.relevant,
                cutoffs,
                most_popular=self.most_popular,
                information=self.information,
            )
            for name, lists in lists_by_model.items()
            if lists is not None
        }


def compare_models(
    evaluation: Evaluation, *, cutoffs: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """The figures that the gate decides on, as JSON values.

    They are every metric of every model, also by segment of the users, and bootstrap bounds of the
    challenger's gain over each other model in NDCG at the last of `cutoffs`.

    Segments: users with fewer than 3 different items before the hold-out are ``new``, with fewer
    than 11 ``light``, the others ``heavy``; ``buyers`` bought something before it.

    seed : of the bootstrap
    """
    scores = evaluation.scores(cutoffs)
    n_items_before = evaluation.n_items_before
    segments = {
        "new": n_items_before < LIGHT,
        "light": (n_items_before >= LIGHT) & (n_items_before < HEAVY),
        "heavy": n_items_before >= HEAVY,
        "buyers": evaluation.buyers,
    }

    def gain_over(other: str) -> dict[str, float] | None:
        if other not in scores:
            return None
        differences = scores["challenger"].ndcg[-1] - scores[other].ndcg[-1]
        mean = float(differences.mean()) if len(differences) else 0.0
        return {
            "mean": mean,
            "lower": lower_bound(differences, BOOTSTRAP_DRAWS, seed),
            "upper": -lower_bound(-differences, BOOTSTRAP_DRAWS, seed),
        }

    return {
        "cutoffs": list(cutoffs),
        "users": evaluation.relevant.shape[0],
        "items": evaluation.relevant.shape[1],
        **{name: scores[name].metrics() if name in scores else None for name in _MODELS},
        "segments": {name: scores[name].segments(segments) for name in scores},
        "bootstrap": {
            "metric": f"ndcg@{cutoffs[-1]}",
            "draws": BOOTSTRAP_DRAWS,
            "seed": seed,
            **{other: gain_over(other) for other in _MODELS[1:]},
        },
        "parity": _parity(evaluation, evaluation.served, cutoffs[-1])
        if evaluation.served
        else None,
    }


_MODELS = ("challenger", "champion", "popularity", "reference")


def _parity(evaluation: Evaluation, refit: RefitLists, k: int) -> dict[str, float]:
    """How the refit changed the model.

    overlap : the mean share of a user's first `k` items that the served model lists as well
    coverage, user_norm, item_norm : of the served model over that of the evaluated one
    """
    evaluated, served = evaluation.challenger[:, :k], refit.lists[:, :k]
    n_items = evaluation.relevant.shape[1]
    first_cell = np.arange(len(evaluated), dtype=np.int64)[:, None] * n_items
    in_both = np.isin(first_cell + evaluated, (first_cell + served)[served >= 0])
    in_both &= evaluated >= 0
    n_listed = max(1, int(np.count_nonzero(evaluated >= 0)))
    covered = [
        int(np.count_nonzero(np.bincount(lists[lists >= 0]))) for lists in (evaluated, served)
    ]
    ratios = [
        float(after / before) if before > 0 else 0.0
        for before, after in zip(refit.norms[0], refit.norms[1], strict=True)
    ]
    return {
        "overlap": float(np.count_nonzero(in_both) / n_listed),
        "coverage": covered[1] / max(1, covered[0]),
        "user_norm": ratios[0],
        "item_norm": ratios[1],
    }
