"""The data that a version's lists are built from, beside matrices and factors."""

from dataclasses import dataclass

import polars as pl

from recsys_ops.lists.bought_together import Baskets


@dataclass(frozen=True)
class ListInputs:
    """The inputs of the lists.

    category : String series, (n_items,), null where the catalogue has none
    pinned : item_id, category (String), the eligible pinned items in the order of the setting;
        they need not be in the matrices
    baskets : with the items of the matrices as columns
    trending : item_id String, score Float32, the list as the version has it
    """

    category: pl.Series
    pinned: pl.DataFrame
    baskets: Baskets
    trending: pl.DataFrame

    @classmethod
    def empty(cls, n_items: int) -> "ListInputs":
        return cls(
            pl.Series([None] * n_items, dtype=pl.String),
            pl.DataFrame(schema={"item_id": pl.String, "category": pl.String}),
            Baskets.none(n_items),
            pl.DataFrame(schema={"item_id": pl.String, "score": pl.Float32}),
        )
