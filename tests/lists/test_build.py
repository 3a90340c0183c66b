"""The lists for the evaluation and for the shop, from matrices typed in."""

import numpy as np
import polars as pl
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.als.warm_start import match
from recsys_ops.lists.build import (
    evaluation_lists,
    popular_by_category,
    popular_items,
    popularity,
    recommendations,
    similar_items,
)

USERS = pl.Series(["ann", "bob", "cleo"])
ITEMS = pl.Series(["cup", "lid", "pan", "pot"])
TRAIN = sparse.csr_matrix(np.array([[9, 0, 2, 0], [9, 3, 0, 0], [0, 0, 0, 0]], np.float32))
FACTORS = Factors(np.array([[1], [1], [0]], np.float32), np.array([[1], [2], [3], [4]], np.float32))


def held_out(*pairs: tuple[int, int]) -> sparse.csr_matrix:
    matrix = np.zeros(TRAIN.shape, bool)
    matrix[tuple(zip(*pairs, strict=True))] = True
    return sparse.csr_matrix(matrix)


def test_factors_are_carried_over_by_id_whatever_their_order():
    champion = Factors(np.array([[2], [1]], np.float32), np.array([[20], [40]], np.float32))
    matched = match(champion, pl.Series(["bob", "ann"]), pl.Series(["lid", "gone"]), USERS, ITEMS)
    assert matched.factors.user.ravel().tolist() == [1, 2, 0]
    assert matched.factors.item.ravel().tolist() == [0, 20, 0, 0]
    assert matched.known_users.tolist() == [True, True, False]
    assert matched.known_items.tolist() == [False, True, False, False]


def test_popularity_is_the_confidence_above_that_of_no_event():
    assert popularity(TRAIN).tolist() == [16, 2, 1, 0]


def test_only_users_and_items_of_earlier_days_are_compared():
    lists = evaluation_lists(TRAIN, held_out((0, 1), (2, 0)), FACTORS, None, 3, exclude_seen=True)
    assert lists.users.tolist() == [0]
    assert lists.challenger.tolist() == [[1, -1, -1]]  # not pot, which no user has
    assert lists.popularity.tolist() == [[1, -1, -1]]
    assert lists.most_popular.tolist() == [0, 1, 2]
    assert lists.champion is None


def test_seen_items_stay_where_they_are_not_excluded():
    lists = evaluation_lists(TRAIN, held_out((0, 1)), FACTORS, None, 3, exclude_seen=False)
    assert lists.challenger.tolist() == [[2, 1, 0]]
    assert lists.popularity.tolist() == [[0, 1, 2]]


def test_a_user_the_champion_does_not_know_gets_the_popularity_list():
    factors = Factors(np.array([[1]], np.float32), np.array([[1], [5], [3]], np.float32))
    champion = match(factors, pl.Series(["bob"]), pl.Series(["cup", "lid", "pan"]), USERS, ITEMS)
    lists = evaluation_lists(
        TRAIN, held_out((0, 1), (1, 2)), FACTORS, champion, 2, exclude_seen=False
    )
    assert lists.champion is not None
    assert lists.champion.tolist() == [[0, 1], [1, 2]]


def test_lists_are_best_first_without_seen_and_ineligible_items():
    eligible = np.array([True, True, True, False])
    frame = recommendations(FACTORS, USERS, ITEMS, 3, seen=TRAIN, eligible=eligible)
    assert frame.to_dict(as_series=False) == {
        "user_id": ["ann", "bob"],
        "items": [["lid"], ["pan"]],
        "scores": [[2.0], [3.0]],
    }
    assert frame.schema == {
        "user_id": pl.String,
        "items": pl.List(pl.String),
        "scores": pl.List(pl.Float32),
    }
    everything = recommendations(FACTORS, USERS, ITEMS, 3, seen=None, eligible=eligible)
    assert everything["items"].to_list() == [["pan", "lid", "cup"]] * 2


def test_popular_items_are_eligible_and_have_events():
    frame = popular_items(TRAIN, ITEMS, 100, eligible=np.array([False, True, True, True]))
    assert frame.to_dict(as_series=False) == {"item_id": ["lid", "pan"], "score": [2.0, 1.0]}


def test_pinned_items_come_first_in_their_order_once_and_without_a_score():
    pinned = pl.Series(["new", "pot"])
    frame = recommendations(
        FACTORS, USERS, ITEMS, 3, seen=TRAIN, eligible=np.ones(4, bool), pinned=pinned
    )
    assert frame.to_dict(as_series=False) == {
        "user_id": ["ann", "bob"],
        "items": [["new", "pot", "lid"], ["new", "pot", "pan"]],
        "scores": [[None, None, 2.0], [None, None, 3.0]],
    }
    only = recommendations(
        FACTORS,
        USERS,
        ITEMS,
        2,
        seen=TRAIN,
        eligible=np.ones(4, bool),
        pinned=pl.Series(["cup", "new", "pot"]),
    )
    assert only["items"].to_list() == [["cup", "new"]] * 2  # seen or not
    popular = popular_items(
        TRAIN, ITEMS, 3, eligible=np.ones(4, bool), pinned=pl.Series(["new", "lid"])
    )
    assert popular.to_dict(as_series=False) == {
        "item_id": ["new", "lid", "cup"],
        "score": [None, None, 16.0],
    }


def test_similar_items_are_those_of_the_greatest_cosine():
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(300, 8)).astype(np.float32) * rng.lognormal(size=(300, 1)).astype(
        np.float32
    )
    factors[[7, 200]] = 0
    eligible = rng.random(300) < 0.6
    items = pl.Series([f"i{n}" for n in range(300)])
    frame = similar_items(factors, items, 5, eligible=eligible)
    lengths = np.linalg.norm(factors, axis=1)
    trained = np.flatnonzero(lengths)
    assert frame["item_id"].to_list() == items.gather(trained).to_list()
    cosines = (factors @ factors.T) / np.maximum(np.outer(lengths, lengths), 1e-9)
    np.fill_diagonal(cosines, -np.inf)
    cosines[:, ~eligible | (lengths == 0)] = -np.inf
    best = np.argsort(-cosines, axis=1)[trained, :5]
    assert frame["items"].to_list() == [items.gather(row).to_list() for row in best]
    np.testing.assert_allclose(
        np.vstack(frame["scores"].to_list()),
        np.take_along_axis(cosines[trained], best, 1),
        atol=1e-5,
    )


def test_each_category_has_its_most_popular_items():
    category = pl.Series(["kitchen", "kitchen", None, "garden"])
    everything = np.ones(4, bool)
    frame = popular_by_category(TRAIN, ITEMS, category, 5, eligible=everything)
    assert frame.to_dict(as_series=False) == {
        "category": ["kitchen"],
        "items": [["cup", "lid"]],
    }  # no user has the pot
    assert popular_by_category(TRAIN, ITEMS, category, 1, eligible=everything)[
        "items"
    ].to_list() == [["cup"]]
    for_sale = np.array([False, True, True, True])
    assert popular_by_category(TRAIN, ITEMS, category, 1, eligible=for_sale)["items"].to_list() == [
        ["lid"]
    ]
