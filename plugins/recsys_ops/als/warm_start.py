"""Another version's factors in this job's rows: to be scored, and to start from."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_ops.als.factors import Factors, small_random
from recsys_ops.settings import TrainingSettings


@dataclass(frozen=True)
class Matched:
    """Another version's factors in the row order of this job's users and items.

    known_users, known_items : bool, (n_users,) and (n_items,); the factors of the others are zeros
    """

    factors: Factors
    known_users: NDArray[np.bool_]
    known_items: NDArray[np.bool_]


def match(
    factors: Factors,
    their_users: pl.Series,
    their_items: pl.Series,
    users: pl.Series,
    items: pl.Series,
) -> Matched:
    """Carry factors over by id; ids that only the other version has are left out."""
    user_factors, known_users = _gather(factors.user, their_users, users)
    item_factors, known_items = _gather(factors.item, their_items, items)
    return Matched(Factors(user_factors, item_factors), known_users, known_items)


def warm_start(champion: Matched, training: TrainingSettings) -> Factors:
    """The champion's factors, and small random ones for users and items that it does not know."""
    theirs = champion.factors
    fresh = small_random((len(theirs.user), len(theirs.item)), training.factors, training.seed)
    return Factors(
        np.where(champion.known_users[:, None], theirs.user, fresh.user),
        np.where(champion.known_items[:, None], theirs.item, fresh.item),
    )


def _gather(
    factors: NDArray[np.float32], theirs: pl.Series, ours: pl.Series
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    index = pl.DataFrame({"id": theirs}).with_row_index("theirs")
    found = pl.DataFrame({"id": ours}).join(index, on="id", how="left", maintain_order="left")[
        "theirs"
    ]
    known = found.is_not_null().to_numpy()
    carried = np.zeros((len(ours), factors.shape[1]), dtype=np.float32)
    carried[known] = factors[found.drop_nulls().to_numpy()]
    return carried, known
