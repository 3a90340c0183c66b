"""Fold-in: what a version's factors recommend to somebody whom it has never seen, by a basket alone."""

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_ops.als.factors import Factors
from recsys_ops.als.normal_equations import exact, gather, gram
from recsys_ops.lists.category_cap import CategoryCap, capped_top_n
from recsys_ops.settings import Bm25Settings, ConfidenceSettings, TrainingSettings


class FoldIn:
    """A version's item factors, and what of a new user's equations is the same for everybody.

    The basket's owner gets the factors that a training would give to a user of just these items (Hu, Koren & Volinsky 2008,
    eq. 4), each weighed like one event of today: `cart`, or the heaviest type where `cart` has no weight. With `bm25` every
    item counts as one of average popularity, as the version does not keep how heavy each one's events were.
    Memory: the item factors once, and the ids.
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
        """Costs items · factors² once.

        factors : of a trained version · items : item_id, eligible, popularity; rows as those of ``factors.item``
        confidence, training : what the version was trained by
        pinned, cap : the rules that the version's own lists follow
        """
        spectrum, basis = np.linalg.eigh(gram(np, factors.item))
        self._spectrum = np.maximum(spectrum, 0)
        # in the eigenbasis; scores are the same in any
        self._factors: NDArray[np.float32] = factors.item @ basis.astype(np.float32)
        self._ids = items["item_id"]
        self._eligible = items["eligible"].to_numpy()
        trained = np.flatnonzero(factors.item.any(axis=1))
        self._row = dict(zip(self._ids.gather(trained), trained.tolist(), strict=True))
        self._pinned, self._cap = pinned, cap
        self._confidence = confidence
        self._regularization = _Regularization(
            factors.user, items["popularity"].to_numpy(), training
        )

    def recommend(self, basket: Collection[str], n: int) -> list[str] | None:
        """The pinned items, then the best eligible ones, best first, equal scores by item index: `n` at most, none of the basket.

        Items that the version does not know are skipped, and of equal ones all but one; None when no item is left.
        """
        known = np.array(
            sorted({self._row[item] for item in basket if item in self._row}), dtype=np.int32
        )
        if not len(known):
            return None
        first = [item for item in self._pinned if item not in basket][:n]
        candidates = self._eligible.copy()
        candidates[known] = False
        candidates[[self._row[item] for item in first if item in self._row]] = False
        user, asked = self._user(known), max(n - len(first), 1)
        if self._cap is None:
            ids, _ = _best(user, self._factors, asked, eligible=candidates)
        else:
            ids, _ = capped_top_n(
                Factors(user, self._factors),
                asked,
                self._cap,
                _best,
                seen=None,
                eligible=candidates,
            )
        return [*first, *self._ids.gather(ids[ids >= 0])][:n]

    def scores(self, known: NDArray[np.int32]) -> NDArray[np.float32]:
        """(n_items,): of every item for the owner of a basket.

        known : the rows of the basket's items, at least one, each once
        """
        found: NDArray[np.float32] = self._factors @ self._user(known)[0]
        return found

    def _user(self, known: NDArray[np.int32]) -> NDArray[np.float32]:
        """(1, factors), in the eigenbasis."""
        confidence = np.full(len(known), self._basket_confidence(len(known)))
        diagonal = self._spectrum + self._regularization.of(float(confidence.sum()) - len(known))
        scale = (diagonal**-0.5).astype(np.float32)[None, :]
        one_row = np.array([0]), np.array([len(known)])
        parts = [gather(np, (known, confidence), one_row, range(len(known)), self._factors, scale)]
        found: NDArray[np.float32] = scale * exact(
            np, lambda: parts, len(known), len(self._spectrum)
        )
        return found

    def _basket_confidence(self, size: int) -> np.float32:
        """Of each item of a basket, as `matrix.build` weighs a cell."""
        weights = self._confidence.weights
        weight = weights.get("cart", max(weights.values()))
        bm25 = self._confidence.bm25
        extra = np.log1p(weight) if bm25 is None else _bm25(bm25, weight, size, len(self._ids))
        return max(
            np.float32(1 + self._confidence.alpha * extra),
            np.nextafter(np.float32(1), np.float32(2)),
        )


class _Regularization:
    """A user's weight as `als.factors.row_regularization` gives it, from what a version keeps of the matrix."""

    def __init__(
        self,
        users: NDArray[np.float32],
        popularity: NDArray[np.float64],
        training: TrainingSettings,
    ) -> None:
        """users : float32, (n_users, factors); untrained ones are all zero · popularity : (n_items,), sums of confidence − 1"""
        trained = np.count_nonzero(users.any(axis=1))
        self._columns = len(popularity)
        self._mean = popularity.sum() / max(trained, 1)
        of_items = popularity[popularity > 0].mean() if popularity.any() else 0.0
        self._scale = training.regularization * (np.sqrt(self._mean * of_items) or 1.0)
        self._exponent = training.regularization_exponent

    def of(self, extra: float) -> float:
        """The L2 weight of a user whose confidences − 1 sum up to `extra`."""
        weight: float = (
            self._scale * ((self._columns + extra) / (self._columns + self._mean)) ** self._exponent
        )
        return weight


def _best(
    user: NDArray[np.float32],
    items: NDArray[np.float32],
    n: int,
    *,
    eligible: NDArray[np.bool_],
    seen: None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`als.recommend.top_n` for one user, (1, factors), without its preparations, which pay off for many."""
    ids, best = np.full((1, n), -1, dtype=np.int32), np.full((1, n), -np.inf, dtype=np.float32)
    scores, rows = items @ user[0], np.flatnonzero(eligible)
    if n < len(rows):
        rows = rows[scores[rows] >= np.partition(scores[rows], -n)[-n]]
    rows = rows[np.argsort(-scores[rows], kind="stable")[:n]]
    ids[0, : len(rows)], best[0, : len(rows)] = rows, scores[rows]
    return ids, best


def _bm25(bm25: Bm25Settings, weight: float, size: int, n_items: int) -> float:
    """A cell's weight as implicit's `bm25_weight` has it, of a user with `size` items, for an item of average popularity."""
    return weight * (bm25.k1 + 1) / (bm25.k1 + weight) * float(np.log(n_items) - np.log1p(size))
