"""The figures of lists: how full they are, and what the live ones have lost."""

import polars as pl
import pytest

from recsys_ops.evaluation.list_figures import list_figures, lost_share


def lists(*of_users: str) -> pl.Series:
    return pl.Series([items.split() for items in of_users], dtype=pl.List(pl.String))


def test_users_without_a_list_have_no_full_one():
    kinds = {
        "recommendations": lists("a b c", "a b", "c a b"),
        "similar": lists("a"),
        "bought_together": lists(),
        "categories": lists("a", "b"),
    }
    figures = list_figures(kinds, pl.Series(list("abcd")), n_users=5, top_n=3)
    assert figures == {
        "counts": {"recommendations": 3, "similar": 1, "bought_together": 0, "categories": 2},
        "users": 5,
        "top_n": 3,
        "full_share": 0.4,
        "popular": 3,
    }
    none = dict.fromkeys(kinds, lists())
    empty = list_figures(none, pl.Series(dtype=pl.String), n_users=0, top_n=3)
    assert (empty["full_share"], empty["popular"]) == (0, 0)


@pytest.mark.parametrize(
    ("eligible", "share"),
    [("a b c d e f g h i j k", 0), ("a b c d e f g k", 0), ("a b c d e f k", 0.5), ("", 1)],
)
def test_a_list_is_lost_when_over_three_tenths_of_its_items_are(eligible: str, share: float):
    live = lists("a b c d e f g h i j", "k", "a b c", "j i h g f")
    items = pl.Series(eligible.split(), dtype=pl.String)
    assert lost_share(live.head(2), items) == share


def test_lists_of_different_lengths_each_count_for_themselves():
    live = lists("a", "a b x y z", "a b c d", "d x")
    assert lost_share(live, pl.Series(["a", "b", "c"])) == 0.5
    assert lost_share(lists(), pl.Series(["a"])) == 0
