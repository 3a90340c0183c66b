"""The lists a job makes: for the evaluation of the held-out day, and to be served."""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.als.recommend import top_n as cpu_top_n
from recsys_ops.evaluation.compare import Evaluation, Served
from recsys_ops.evaluation.metrics import self_information
from recsys_ops.worker.matching import Matched

# as `recsys_ops.als.recommend.top_n`
TopN = Callable[..., tuple[NDArray[np.int32], NDArray[np.float32]]]


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
    users = np.flatnonzero((np.diff(holdout.indptr) > 0) & (np.diff(train.indptr) > 0)).astype(np.int32)
    popular = popularity(train)
    met = popular > 0
    seen = train[users] if exclude_seen else None
    by_popularity = _most_popular(popular, len(users), k, seen=seen, eligible=met)[0]

    def earlier(model: Matched | None) -> NDArray[np.int32] | None:
        if model is None:
            return None
        theirs = model.factors
        lists, _ = top_n(theirs.user[users], theirs.item, k, seen=seen, eligible=met & model.known_items)
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
) -> Served:
    """What the refitted model would have listed in the place of the evaluated one. Arguments as in `evaluation_lists`.

    users : the rows of those that were evaluated
    """
    seen, met = train[users] if exclude_seen else None, popularity(train) > 0
    norms = [[np.linalg.norm(side, axis=1).mean() for side in (model.user, model.item)] for model in (evaluated, served)]
    return Served(top_n(served.user[users], served.item, k, seen=seen, eligible=met)[0], np.array(norms, dtype=np.float64))


def recommendations(
    factors: Factors,
    users: pl.Series,
    items: pl.Series,
    n: int,
    *,
    seen: sparse.csr_matrix | None,
    eligible: NDArray[np.bool_],
    top_n: TopN = cpu_top_n,
) -> pl.DataFrame:
    """user_id String, items List[String], scores List[Float32], best first; a user for whom nothing is left has no row."""
    ids, scores = top_n(factors.user, factors.item, n, seen=seen, eligible=eligible)
    listed = ids >= 0
    row, _ = np.nonzero(listed)
    flat = pl.DataFrame({"row": row, "items": items.gather(ids[listed]), "scores": scores[listed]})
    lists = flat.group_by("row", maintain_order=True).agg("items", "scores")
    return lists.select(user_id=users.gather(lists["row"]), items="items", scores="scores")


def popular_items(user_items: sparse.csr_matrix, items: pl.Series, n: int, *, eligible: NDArray[np.bool_]) -> pl.DataFrame:
    """item_id String, score Float32: the at most `n` most popular eligible items, best first."""
    score = popularity(user_items)
    ids, scores = _most_popular(score, 1, n, seen=None, eligible=eligible & (score > 0))
    listed = ids[0] >= 0
    return pl.DataFrame({"item_id": items.gather(ids[0][listed]), "score": scores[0][listed]})


def _most_popular(
    score: NDArray[np.float64], n_users: int, n: int, *, seen: sparse.csr_matrix | None, eligible: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Popularity is a model of one factor, the same for everybody."""
    everybody = np.ones((n_users, 1), dtype=np.float32)
    return cpu_top_n(everybody, score[:, None].astype(np.float32), n, seen=seen, eligible=eligible)
