"""The figures of the lists that a version serves, for the gate."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

# the kinds of lists that are counted; `trending` is empty where nothing is
KINDS = ("recommendations", "similar", "bought_together", "categories")
# a list that lost more than this share of its items is damaged: of 20 places 7
LOST = 0.3
# but a short list is not, by the one or two items that are sold out every day
_FEW = 2
_AT_ONCE = 100_000


def list_figures(
    lists: Mapping[str, pl.Series], popular: pl.Series, *, n_users: int, top_n: int
) -> dict[str, Any]:
    """How many lists a version has, and how long they are, as JSON values.

    lists : by kind, the items of each list, List[String]
    popular : String series, the popular list
    n_users : all users of the version, with a list or without

    Returns ``counts`` by kind, ``users``, ``top_n``, ``full_share`` (the share of the users whose
    list has `top_n` items) and ``popular`` (the number of items that a stranger gets).
    """
    full = (lists["recommendations"].list.len() == top_n).sum()
    return {
        "counts": {kind: len(lists[kind]) for kind in KINDS},
        "users": n_users,
        "top_n": top_n,
        "full_share": int(full) / max(1, n_users),
        "popular": min(top_n, len(popular)),
    }


def lost_share(lists: pl.Series, eligible: pl.Series) -> float:
    """The share of the lists that lost more than the share `LOST` of their items; 0 without lists.

    An item is lost that is not `eligible`. A list that lost at most two items and has others left
    is not counted. Memory grows with `_AT_ONCE` lists only, beside the arguments.

    lists : List[String], an earlier version's recommendation lists, none of them empty
    eligible : String series, the items that the new version may list
    """
    listed = eligible.unique().implode()
    damaged = 0
    for part in lists.to_frame("items").iter_slices(_AT_ONCE):
        lengths = part["items"].list.len().to_numpy().astype(np.int64)
        lost = ~part["items"].explode().is_in(listed).to_numpy()
        of_list = np.add.reduceat(lost, np.cumsum(lengths) - lengths, dtype=np.int64)
        many = (of_list > LOST * lengths) & ((of_list > _FEW) | (of_list == lengths))
        damaged += int(np.count_nonzero(many))
    return damaged / max(1, len(lists))
