"""The factors of another version in the rows of this job: to score them, or to start from them."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_ops.als.factors import Factors, small_random
from recsys_ops.settings import TrainingSettings


@dataclass(frozen=True)
class Matched:
    """Another version's factors in the row order of this job's users and items.

    factors : zeros for the users and items that the other version does not know
    known_users : bool, (n_users,) · known_items : bool, (n_items,)
    """

    factors: Factors
    known_users: NDArray[np.bool_]
    known_items: NDArray[np.bool_]


def match(
    factors: Factors,
    version_users: pl.Series,
    version_items: pl.Series,
    users: pl.Series,
    items: pl.Series,
) -> Matched:
    """Carry a version's factors over by id; ids that only that version has are left out.

    version_users, version_items : String series, the ids of the rows of `factors`
    users, items : String series, the ids of this job's rows
    """
    user_factors, known_users = _in_order(factors.user, version_users, users)
    item_factors, known_items = _in_order(factors.item, version_items, items)
    return Matched(Factors(user_factors, item_factors), known_users, known_items)


def warm_start(champion: Matched, training: TrainingSettings) -> Factors:
    """The champion's factors, and small random ones for users and items that it does not know."""
    user, item = champion.factors.user, champion.factors.item
    random = small_random((len(user), len(item)), training.factors, training.seed)
    return Factors(
        np.where(champion.known_users[:, None], user, random.user),
        np.where(champion.known_items[:, None], item, random.item),
    )


def _in_order(
    factors: NDArray[np.float32], version_ids: pl.Series, ids: pl.Series
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The rows of `factors` in the order of `ids`, and which of these the version knows."""
    version_rows = pl.DataFrame({"id": version_ids}).with_row_index("row")
    rows = pl.DataFrame({"id": ids}).join(version_rows, on="id", how="left", maintain_order="left")[
        "row"
    ]
    known = rows.is_not_null().to_numpy()
    carried = np.zeros((len(ids), factors.shape[1]), dtype=np.float32)
    carried[known] = factors[rows.drop_nulls().to_numpy()]
    return carried, known
