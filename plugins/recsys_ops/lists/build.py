"""The lists a job makes: for the evaluation of the held-out day, and to be served."""

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
    """The top `k` of challenger, champion, reference and popularity for the same users from the same items.

    Users: who liked something on the held-out day and did something before it; a stranger gets the popular items from any
    model, which would only thin out the comparison. Items: all that anybody met before the day, served or not. A user whom
    champion or reference does not know gets the popularity list, as in the shop.

    train : csr_matrix, (n_users, n_items), confidence · holdout : csr_matrix, (n_users, n_items), bool
    top_n : what makes the lists of the models · buyers : bool, (n_users,), who had bought before, nobody when None
    """
    users = np.flatnonzero((np.diff(holdout.indptr) > 0) & (np.diff(train.indptr) > 0)).astype(
        np.int32
    )
    popular = popularity(train)
    met = popular > 0
    seen = train[users] if exclude_seen else None
    by_popularity = _most_popular(popular, len(users), k, seen=seen, eligible=met)[0]

    def earlier(model: Matched | None) -> NDArray[np.int32] | None:
        if model is None:
            return None
        theirs = model.factors
        lists, _ = top_n(
            theirs.user[users], theirs.item, k, seen=seen, eligible=met & model.known_items
        )
        served = model.known_users & theirs.user.any(axis=1)
        return np.where(served[users, None], lists, by_popularity)

    return Evaluation(
        users=users,
        met=np.diff(train.indptr)[users],
        buyers=np.zeros(len(users), dtype=bool) if buyers is None else buyers[users],
        challenger=top_n(challenger.user[users], challenger.item, k, seen=seen, eligible=met)[0],
        popularity=by_popularity,
        champion=earlier(champion),
        reference=earlier(reference),
        relevant=holdout[users],
        most_popular=_most_popular(popular, 1, k, seen=None, eligible=met)[0][0],
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
    """What the refitted model would have listed in the place of the evaluated one. Arguments as in `evaluation_lists`.

    users : the rows of those that were evaluated
    """
    seen, met = train[users] if exclude_seen else None, popularity(train) > 0
    norms = [
        [np.linalg.norm(side, axis=1).mean() for side in (model.user, model.item)]
        for model in (evaluated, served)
    ]
    return RefitLists(
        top_n(served.user[users], served.item, k, seen=seen, eligible=met)[0],
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
    """user_id String, items List[String], scores List[Float32], best first; a user for whom nothing is left has no row.

    Every trained user has `n` items, as long as so many are eligible, were not seen and fit under the cap: items that nobody
    like the user chose come last, but they come. So no list needs to be filled up with popular items.

    pinned : String series, ids that come first for everybody, seen or not, their score null; they may be in `items` or not
    """
    pins = pl.Series([], dtype=pl.String) if pinned is None else pinned.head(n)
    rest = n - len(pins)
    asked, others = max(rest, 1), _without(eligible, items, pins)
    if cap is None:
        ids, scores = top_n(factors.user, factors.item, asked, seen=seen, eligible=others)
    else:
        ids, scores = capped_top_n(factors, asked, cap, top_n, seen=seen, eligible=others)
    first = np.where(
        np.any(factors.user, axis=1, keepdims=True),
        len(items) + np.arange(len(pins), dtype=np.int32),
        np.int32(-1),
    )
    unscored = np.full(first.shape, np.nan, dtype=np.float32)
    whole = np.hstack([first, ids[:, :rest]]), np.hstack([unscored, scores[:, :rest]])
    return _frame(users.alias("user_id"), pl.concat([items, pins]), *whole)


def similar_items(
    item_factors: NDArray[np.float32],
    items: pl.Series,
    n: int,
    *,
    eligible: NDArray[np.bool_],
    top_n: TopN = cpu_top_n,
) -> pl.DataFrame:
    """item_id String, items List[String], scores List[Float32]: the `n` eligible items of the greatest cosine, best first.

    An item is not in its own list; one whose factors are all zero, which nobody chose, has no row and is in none.
    """
    norms = np.linalg.norm(item_factors, axis=1)
    directions = item_factors / np.where(norms > 0, norms, 1)[:, None]
    itself = sparse.identity(len(items), dtype=bool, format="csr")
    ids, scores = top_n(directions, directions, n, seen=itself, eligible=eligible & (norms > 0))
    return _frame(items.alias("item_id"), items, ids, scores)


def bought_together_items(
    found: Baskets,
    items: pl.Series,
    n: int,
    settings: BoughtTogetherSettings,
    *,
    eligible: NDArray[np.bool_],
) -> pl.DataFrame:
    """item_id String, items List[String], scores List[Float32], see `bought_together`; an item without any has no row."""
    return _frame(
        items.alias("item_id"), items, *bought_together(found, n, settings, eligible=eligible)
    )


def popular_items(
    user_items: sparse.csr_matrix,
    items: pl.Series,
    n: int,
    *,
    eligible: NDArray[np.bool_],
    pinned: pl.Series | None = None,
) -> pl.DataFrame:
    """item_id String, score Float32: the pinned items, whose score is null, and the most popular eligible ones, best first.

    `n` at most in all; a pinned item stands once.
    """
    pins = pl.Series([], dtype=pl.String) if pinned is None else pinned.head(n)
    score = popularity(user_items)
    ids, scores = _most_popular(
        score, 1, n, seen=None, eligible=_without(eligible, items, pins) & (score > 0)
    )
    listed = ids[0] >= 0
    popular = pl.DataFrame({"item_id": items.gather(ids[0][listed]), "score": scores[0][listed]})
    first = pl.DataFrame(
        {"item_id": pins, "score": pl.Series([None] * len(pins), dtype=pl.Float32)}
    )
    return pl.concat([first, popular]).head(n)


def popular_by_category(
    user_items: sparse.csr_matrix,
    items: pl.Series,
    category: pl.Series,
    n: int,
    *,
    eligible: NDArray[np.bool_],
) -> pl.DataFrame:
    """category String, items List[String]: the at most `n` most popular eligible items of each, best first.

    category : String series, (n_items,); an item whose category is null is in none
    """
    score = popularity(user_items)
    found = pl.DataFrame(
        {"category": category, "items": items, "score": score.astype(np.float32)}
    ).filter(pl.Series(eligible & (score > 0)), pl.col("category").is_not_null())
    ranked = found.sort("category", -pl.col("score"), maintain_order=True)
    return ranked.group_by("category", maintain_order=True).agg(pl.col("items").head(n))


def _frame(
    keys: pl.Series, items: pl.Series, ids: NDArray[np.int32], scores: NDArray[np.float32]
) -> pl.DataFrame:
    """The key, items List[String] and scores List[Float32] of every row that lists something; a score that is NaN is null."""
    listed = ids >= 0
    row, _ = np.nonzero(listed)
    scored = pl.Series(scores[listed]).fill_nan(None)
    flat = pl.DataFrame({"row": row, "items": items.gather(ids[listed]), "scores": scored})
    lists = flat.group_by("row", maintain_order=True).agg("items", "scores")
    return lists.select(keys.gather(lists["row"]), items="items", scores="scores")


def _without(eligible: NDArray[np.bool_], items: pl.Series, pins: pl.Series) -> NDArray[np.bool_]:
    others: NDArray[np.bool_] = eligible & ~items.is_in(pins.implode()).to_numpy()
    return others


def _most_popular(
    score: NDArray[np.float64],
    n_users: int,
    n: int,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Popularity is a model of one factor, the same for everybody."""
    everybody = np.ones((n_users, 1), dtype=np.float32)
    return cpu_top_n(everybody, score[:, None].astype(np.float32), n, seen=seen, eligible=eligible)
