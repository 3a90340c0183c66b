"""The lists that a job makes: to evaluate the model, and to be served."""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.als.top_n import top_n as cpu_top_n
from recsys_ops.als.warm_start import Matched
from recsys_ops.evaluation.compare import Evaluation, RefitLists
from recsys_ops.evaluation.metrics import self_information
from recsys_ops.lists.bought_together import Baskets, bought_together
from recsys_ops.lists.category_cap import CategoryCap, TopN, capped_top_n
from recsys_ops.settings import BoughtTogetherSettings


def popularity(user_items: sparse.csr_matrix) -> NDArray[np.float64]:
    """(n_items,): the sum over users of confidence − 1."""
    extra = user_items.astype(np.float64)
    extra.data -= 1
    return np.asarray(extra.sum(axis=0)).ravel()


def evaluation_lists(
    train: sparse.csr_matrix,
    holdout: sparse.csr_matrix,
    challenger: Factors,
    champion: Matched | None,
    k: int,
    exclude_seen: bool,
    top_n: TopN = cpu_top_n,
    *,
    reference: Matched | None = None,
    buyers: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """The top `k` of challenger, champion, reference and popularity for the same users and items.

    Users are those with a pair both in `holdout` and in `train`. A user without the latter would
    get the popular items from any model, which would only blur the comparison. Items are those that
    any user has in `train`, eligible or not. A user whom champion or reference does not know gets
    the popularity list, as in the shop.

    train : csr_matrix, float32, (n_users, n_items), confidence
    holdout : csr_matrix, bool, (n_users, n_items)
    top_n : makes the lists of the models
    buyers : bool, (n_users,), who bought something in `train`, nobody when None
    """
    users = np.flatnonzero((np.diff(holdout.indptr) > 0) & (np.diff(train.indptr) > 0)).astype(
        np.int32
    )
    popular = popularity(train)
    trained = popular > 0
    seen = train[users] if exclude_seen else None
    by_popularity = _most_popular(popular, len(users), k, seen=seen, eligible=trained)[0]

    def lists_of(earlier: Matched | None) -> NDArray[np.int32] | None:
        if earlier is None:
            return None
        user_factors, item_factors = earlier.factors.user, earlier.factors.item
        eligible = trained & earlier.known_items
        lists, _ = top_n(user_factors[users], item_factors, k, seen=seen, eligible=eligible)
        has_list = earlier.known_users & user_factors.any(axis=1)
        return np.where(has_list[users, None], lists, by_popularity)

    return Evaluation(
        users=users,
        n_items_before=np.diff(train.indptr)[users],
        buyers=np.zeros(len(users), dtype=bool) if buyers is None else buyers[users],
        challenger=top_n(challenger.user[users], challenger.item, k, seen=seen, eligible=trained)[
            0
        ],
        popularity=by_popularity,
        champion=lists_of(champion),
        reference=lists_of(reference),
        relevant=holdout[users],
        most_popular=_most_popular(popular, 1, k, seen=None, eligible=trained)[0][0],
        information=self_information(train),
    )


def served_lists(
    train: sparse.csr_matrix,
    users: NDArray[np.int32],
    evaluated: Factors,
    served: Factors,
    k: int,
    exclude_seen: bool,
    top_n: TopN = cpu_top_n,
) -> RefitLists:
    """The lists of the refitted model for the users and items of the evaluation.

    users : the rows of the evaluated users · the other arguments : as in `evaluation_lists`
    """
    seen, trained = train[users] if exclude_seen else None, popularity(train) > 0
    norms = [
        [np.linalg.norm(side, axis=1).mean() for side in (model.user, model.item)]
        for model in (evaluated, served)
    ]
    return RefitLists(
        top_n(served.user[users], served.item, k, seen=seen, eligible=trained)[0],
        np.array(norms, dtype=np.float64),
    )


def recommendations(
    factors: Factors,
    users: pl.Series,
    items: pl.Series,
    n: int,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
    pinned: pl.Series | None = None,
    cap: CategoryCap | None = None,
    top_n: TopN = cpu_top_n,
) -> pl.DataFrame:
    """The recommendation lists of the users.

    A trained user gets `n` items if that many are eligible, not seen and allowed by the cap. Even
    items far from the user's taste have a score, so no list has to be filled up with popular items.

    pinned : String series, ids that come first in every list, seen or not, with score null; they
        need not be in `items`

    Returns user_id String, items List[String], scores List[Float32], best first; a user whose list
    would be empty has no row.
    """
    pinned = pl.Series([], dtype=pl.String) if pinned is None else pinned.head(n)
    n_others = n - len(pinned)
    n_scored, others = max(n_others, 1), _without(eligible, items, pinned)
    if cap is None:
        ids, scores = top_n(factors.user, factors.item, n_scored, seen=seen, eligible=others)
    else:
        ids, scores = capped_top_n(factors, n_scored, cap, top_n, seen=seen, eligible=others)
    pinned_ids = np.where(
        np.any(factors.user, axis=1, keepdims=True),
        len(items) + np.arange(len(pinned), dtype=np.int32),
        np.int32(-1),
    )
    no_scores = np.full(pinned_ids.shape, np.nan, dtype=np.float32)
    return _frame(
        users.alias("user_id"),
        pl.concat([items, pinned]),
        np.hstack([pinned_ids, ids[:, :n_others]]),
        np.hstack([no_scores, scores[:, :n_others]]),
    )


def similar_items(
    item_factors: NDArray[np.float32],
    items: pl.Series,
    n: int,
    *,
    eligible: NDArray[np.bool_],
    top_n: TopN = cpu_top_n,
) -> pl.DataFrame:
    """For each item the `n` eligible items with the highest cosine of their factors, best first.

    An item is not in its own list. An item whose factors are all zero was not trained: it has no
    list and is in none.

    Returns item_id String, items List[String], scores List[Float32].
    """
    norms = np.linalg.norm(item_factors, axis=1)
    directions = item_factors / np.where(norms > 0, norms, 1)[:, None]
    own_row = sparse.identity(len(items), dtype=bool, format="csr")
    ids, scores = top_n(directions, directions, n, seen=own_row, eligible=eligible & (norms > 0))
    return _frame(items.alias("item_id"), items, ids, scores)


def bought_together_items(
    baskets: Baskets,
    items: pl.Series,
    n: int,
    settings: BoughtTogetherSettings,
    *,
    eligible: NDArray[np.bool_],
) -> pl.DataFrame:
    """The lists of `bought_together` with ids; an item with an empty list has no row.

    Returns item_id String, items List[String], scores List[Float32].
    """
    ids, scores = bought_together(baskets, n, settings, eligible=eligible)
    return _frame(items.alias("item_id"), items, ids, scores)


def popular_items(
    user_items: sparse.csr_matrix,
    items: pl.Series,
    n: int,
    *,
    eligible: NDArray[np.bool_],
    pinned: pl.Series | None = None,
) -> pl.DataFrame:
    """The pinned items and then the most popular eligible ones, best first, at most `n` in all.

    Returns item_id String, score Float32, null for the pinned items.
    """
    pinned = pl.Series([], dtype=pl.String) if pinned is None else pinned.head(n)
    score = popularity(user_items)
    others = _without(eligible, items, pinned) & (score > 0)
    ids, scores = _most_popular(score, 1, n, seen=None, eligible=others)
    listed = ids[0] >= 0
    popular = pl.DataFrame({"item_id": items.gather(ids[0][listed]), "score": scores[0][listed]})
    no_scores = pl.Series([None] * len(pinned), dtype=pl.Float32)
    return pl.concat([pl.DataFrame({"item_id": pinned, "score": no_scores}), popular]).head(n)


def popular_by_category(
    user_items: sparse.csr_matrix,
    items: pl.Series,
    category: pl.Series,
    n: int,
    *,
    eligible: NDArray[np.bool_],
) -> pl.DataFrame:
    """The at most `n` most popular eligible items of each category, best first.

    category : String series, (n_items,); an item whose category is null is in no list

    Returns category String, items List[String].
    """
    score = popularity(user_items)
    scored = pl.DataFrame(
        {"category": category, "items": items, "score": score.astype(np.float32)}
    ).filter(pl.Series(eligible & (score > 0)), pl.col("category").is_not_null())
    ranked = scored.sort("category", -pl.col("score"), maintain_order=True)
    return ranked.group_by("category", maintain_order=True).agg(pl.col("items").head(n))


def _frame(
    keys: pl.Series, items: pl.Series, ids: NDArray[np.int32], scores: NDArray[np.float32]
) -> pl.DataFrame:
    """The key, items List[String] and scores List[Float32] of each row that is not empty.

    A score that is NaN becomes null.
    """
    listed = ids >= 0
    row, _ = np.nonzero(listed)
    scored = pl.Series(scores[listed]).fill_nan(None)
    flat = pl.DataFrame({"row": row, "items": items.gather(ids[listed]), "scores": scored})
    lists = flat.group_by("row", maintain_order=True).agg("items", "scores")
    return lists.select(keys.gather(lists["row"]), items="items", scores="scores")


def _without(eligible: NDArray[np.bool_], items: pl.Series, pinned: pl.Series) -> NDArray[np.bool_]:
    """(n_items,): the eligible items that are not pinned."""
    others: NDArray[np.bool_] = eligible & ~items.is_in(pinned.implode()).to_numpy()
    return others


def _most_popular(
    score: NDArray[np.float64],
    n_users: int,
    n: int,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The lists of popularity, which is a model of one factor, the same for all users."""
    users = np.ones((n_users, 1), dtype=np.float32)
    return cpu_top_n(users, score[:, None].astype(np.float32), n, seen=seen, eligible=eligible)
