"""Fold-in: a list for a basket, from a version's item factors, for a user it was not trained on."""

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_ops.als.factors import Factors, l2_weights
from recsys_ops.als.normal_equations import gather, gram_float64, solve_exactly
from recsys_ops.interactions.confidence import PairCounts, confidence_of
from recsys_ops.lists.category_cap import CategoryCap, capped_top_n
from recsys_ops.settings import ConfidenceSettings, TrainingSettings


class FoldIn:
    """A version's item factors, and the part of a new user's equations that all new users share.

    A basket gets the factors that training would give to a user of just these items (Hu, Koren &
    Volinsky 2008, eq. 4). Each item weighs as one event of today: `cart`, or the heaviest type
    where `cart` has no weight. With `bm25` each item counts as one of average popularity, because
    the version does not keep the summed weights of the items.

    Memory: the item factors once, and the ids.

    item_factors : float32, (n_items, factors), in the eigenbasis of their second moments; scores
        are the same in any basis
    """

    def __init__(
        self,
        factors: Factors,
        items: pl.DataFrame,
        confidence: ConfidenceSettings,
        training: TrainingSettings,
        *,
        pinned: Sequence[str] = (),
        cap: CategoryCap | None = None,
    ) -> None:
        """Costs items · factors² operations once.

        factors : of a trained version
        items : item_id, eligible, popularity (the sum of confidence − 1); rows as in
            ``factors.item``
        confidence, training : the settings that the version was trained with
        pinned, cap : as for the version's own lists
        """
        eigenvalues, basis = np.linalg.eigh(gram_float64(np, factors.item))
        self._spectrum = np.maximum(eigenvalues, 0)
        self.item_factors: NDArray[np.float32] = factors.item @ basis.astype(np.float32)
        self._ids = items["item_id"]
        self._eligible = items["eligible"].to_numpy()
        trained = np.flatnonzero(factors.item.any(axis=1))
        self._row_of = dict(zip(self._ids.gather(trained), trained.tolist(), strict=True))
        self._pinned, self._cap = pinned, cap
        self._confidence, self._training = confidence, training
        popularity = items["popularity"].to_numpy()
        trained_users = np.count_nonzero(factors.user.any(axis=1))
        self._user_mean = popularity.sum() / max(trained_users, 1)
        self._item_mean = popularity[popularity > 0].mean() if popularity.any() else 0.0

    def recommend(self, basket: Collection[str], n: int) -> list[str] | None:
        """The pinned items, then the eligible ones with the highest scores; equal ones by index.

        At most `n`, and none of the basket. Repeated items of the basket count once, those that the
        version does not know not at all; None when it knows none of them.
        """
        rows = np.array(
            sorted({self._row_of[item] for item in basket if item in self._row_of}), dtype=np.int32
        )
        if not len(rows):
            return None
        pinned = [item for item in self._pinned if item not in basket][:n]
        candidates = self._eligible.copy()
        candidates[rows] = False
        candidates[[self._row_of[item] for item in pinned if item in self._row_of]] = False
        user, n_scored = self.user_factors(rows), max(n - len(pinned), 1)
        if self._cap is None:
            ids, _ = _top_n_of_one(user, self.item_factors, n_scored, eligible=candidates)
        else:
            ids, _ = capped_top_n(
                Factors(user, self.item_factors),
                n_scored,
                self._cap,
                _top_n_of_one,
                seen=None,
                eligible=candidates,
            )
        return [*pinned, *self._ids.gather(ids[ids >= 0])][:n]

    def user_factors(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """(1, factors), the factors of a basket's owner, in the basis of `item_factors`.

        rows : the rows of the basket's items, at least one, each once
        """
        confidence = self._basket_confidence(len(rows))
        extra = np.array([float(confidence.sum()) - len(rows)])
        regularization = l2_weights(
            extra, self._user_mean, self._item_mean, len(self._ids), self._training
        )
        scale = ((self._spectrum + regularization) ** -0.5).astype(np.float32)[None, :]
        one_row = np.array([0]), np.array([len(rows)])
        parts = [
            gather(np, (rows, confidence), one_row, range(len(rows)), self.item_factors, scale)
        ]
        user: NDArray[np.float32] = scale * solve_exactly(
            np, lambda: parts, len(rows), len(self._spectrum)
        )
        return user

    def _basket_confidence(self, size: int) -> NDArray[np.float32]:
        """(size,): of each item of a basket."""
        weights = self._confidence.weights
        weight = np.full(size, weights.get("cart", max(weights.values())), dtype=np.float64)
        return confidence_of(weight, self._confidence, lambda: self._average_items(size))

    def _average_items(self, size: int) -> PairCounts:
        """The pairs of one user with `size` items of average popularity."""
        return PairCounts(np.full(size, size), np.ones(size), 1.0, len(self._ids))


def _top_n_of_one(
    user: NDArray[np.float32],
    items: NDArray[np.float32],
    n: int,
    *,
    eligible: NDArray[np.bool_],
    seen: None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`als.top_n.top_n` for one user, (1, factors), without the preparations, which suit many."""
    ids, best = np.full((1, n), -1, dtype=np.int32), np.full((1, n), -np.inf, dtype=np.float32)
    scores, rows = items @ user[0], np.flatnonzero(eligible)
    if n < len(rows):
        rows = rows[scores[rows] >= np.partition(scores[rows], -n)[-n]]
    rows = rows[np.argsort(-scores[rows], kind="stable")[:n]]
    ids[0, : len(rows)], best[0, : len(rows)] = rows, scores[rows]
    return ids, best
