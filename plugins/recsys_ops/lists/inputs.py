"""What the lists of a version are built from, beside the factors."""

from dataclasses import dataclass

import polars as pl

from recsys_ops.lists.bought_together import Baskets


@dataclass(frozen=True)
class ListInputs:
    """What the lists are made of beside the interactions.

    category : String series, (n_items,), null where the catalogue has none
    pinned : item_id, category (String), eligible items in the order of the setting, in the matrices or not
    baskets : of the same items
    trending : item_id String, score Float32, as it will be in the version
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
