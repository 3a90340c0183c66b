"""Ranking metrics against cases worked by hand, and against implicit and RecTools."""

import numpy as np
import pytest
from implicit.evaluation import ranking_metrics_at_k
from scipy import sparse

from recsys_ops.evaluation.metrics import (
    lower_bound,
    ndcg_by_user,
    ranking_metrics,
    score,
    self_information,
)


def liked(*rows: list[int], items: int = 10) -> sparse.csr_matrix:
    matrix = np.zeros((len(rows), items), dtype=bool)
    for user, row in enumerate(rows):
        matrix[user, row] = True
    return sparse.csr_matrix(matrix)


def scores(lists: list[list[int]], relevant: sparse.csr_matrix, k: int) -> dict[str, float]:
    return ranking_metrics(
        np.array(lists, np.int32), relevant, [k], most_popular=np.arange(k, dtype=np.int32)
    )


@pytest.mark.parametrize(
    ("ranking", "average_precision"),
    [
        ([8, 9, 0, 1, 2, 3], 1.0),
        ([0, 1, 2, 3, 8, 9], (1 / 5 + 2 / 6) / 2),
        ([0, 8, 1, 2, 3, 4], 1 / 4),
        ([0, 1, 2, 3, 4, 5], 0.0),
    ],
)
def test_average_precision_at_6_of_two_liked_items(ranking: list[int], average_precision: float):
    assert scores([ranking], liked([8, 9]), 6)["map@6"] == pytest.approx(average_precision)


def test_every_metric_of_one_user_by_hand():
    # places 2 and 4 hit, three liked, k = 4
    values = scores([[0, 7, 1, 8]], liked([7, 8, 9]), 4)
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert values == pytest.approx(
        {
            "ndcg@4": (1 / np.log2(3) + 1 / np.log2(5)) / ideal,
            "map@4": (1 / 2 + 2 / 4) / 3,
            "recall@4": 2 / 3,
            "precision@4": 2 / 4,
            "hit_rate@4": 1.0,
            "coverage@4": 4 / 10,
            "popular@4": 2 / 4,
        }
    )


def test_a_perfect_list_scores_one_with_more_likes_than_places():
    values = scores([[1, 2]], liked([1, 2, 3, 4]), 2)
    assert (values["ndcg@2"], values["map@2"], values["precision@2"], values["recall@2"]) == (
        1.0,
        1.0,
        1.0,
        0.5,
    )


def test_users_who_liked_nothing_are_left_out_of_the_means():
    relevant = liked([1], [])
    assert scores([[1, 2], [1, 2]], relevant, 2)["ndcg@2"] == 1.0
    assert ndcg_by_user(np.array([[1, 2], [1, 2]], np.int32), relevant, 2).tolist() == [1.0, 0.0]


def test_padding_is_never_a_hit_nor_covered():
    values = scores([[-1, -1], [3, -1]], liked([9], [3]), 2)
    assert (values["hit_rate@2"], values["coverage@2"], values["precision@2"]) == (0.5, 0.1, 0.25)


def test_no_users_give_zeros():
    values = ranking_metrics(
        np.zeros((0, 3), np.int32),
        liked().reshape(0, 10),
        [3],
        most_popular=np.arange(3, dtype=np.int32),
    )
    assert set(values.values()) == {0.0}


class Ranked:
    """What implicit needs of a model to score its lists."""

    def __init__(self, lists: np.ndarray) -> None:
        self.lists = lists

    def recommend(self, users: np.ndarray, _user_items: object, N: int) -> tuple[np.ndarray, None]:  # noqa: N803
        return self.lists[users, :N], None


def test_metrics_agree_with_implicit_s():
    rng = np.random.default_rng(2)
    users, items, k = 200, 50, 10
    lists = np.argsort(rng.random((users, items)), axis=1)[:, :k].astype(np.int32)
    relevant = sparse.csr_matrix(rng.random((users, items)) < 0.1)
    metrics = ranking_metrics(lists, relevant, [k], most_popular=np.arange(k, dtype=np.int32))
    by_implicit = ranking_metrics_at_k(Ranked(lists), relevant, relevant, K=k, show_progress=False)
    assert metrics["ndcg@10"] == pytest.approx(by_implicit["ndcg"])
    assert metrics["map@10"] == pytest.approx(by_implicit["map"])
    # implicit's "precision" is hits over Σ min(k, liked)
    likes = np.diff(relevant.indptr)
    counted = np.count_nonzero(likes)
    assert metrics["precision@10"] * counted * k == pytest.approx(
        by_implicit["precision"] * np.minimum(likes, k).sum()
    )


def test_metrics_agree_with_rectools_s():
    """The figures are those of RecTools 0.19.0.

    They are its NDCG with ``divide_by_achievable``, its MeanInvUserFreq and its CatalogCoverage.
    Its MAP divides by all a user liked, not by at most k, which for k = 10 is the same here.
    """
    rng = np.random.default_rng(9)
    lists = np.argsort(rng.random((40, 25)), axis=1)[:, :10].astype(np.int32)
    relevant = sparse.csr_matrix(rng.random((40, 25)) < 0.15)
    has_item = rng.random((40, 25)) < np.linspace(0.1, 0.9, 25)
    has_item[:, 0] = False
    metrics = score(
        lists,
        relevant,
        (3, 10),
        most_popular=np.arange(10, dtype=np.int32),
        information=self_information(sparse.csr_matrix(has_item)),
    ).metrics()
    expected = {
        "ndcg@3": 0.167490107683,
        "recall@3": 0.132051282051,
        "precision@3": 0.153846153846,
        "hit_rate@3": 0.410256410256,
        "coverage@3": 0.96,
        "novelty@3": 1.297926642220,
        "ndcg@10": 0.277011205046,
        "map@10": 0.154396791480,
        "recall@10": 0.398717948718,
        "precision@10": 0.148717948718,
        "hit_rate@10": 0.794871794872,
        "coverage@10": 1.0,
        "novelty@10": 1.355101473948,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_novelty_is_the_mean_of_the_listed_items_self_information():
    # of four users with a cell one has item 0, four have item 1 and none has item 2
    has_item = sparse.csr_matrix(np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]))
    assert self_information(has_item).tolist() == [2.0, 0.0, 2.0]
    values = score(
        np.array([[0, 1], [1, -1]], np.int32), liked([0], [0], items=3), [1, 2],
        most_popular=np.array([1, 0], np.int32), information=self_information(has_item),
    ).metrics()  # fmt: skip
    assert (values["novelty@1"], values["novelty@2"]) == (1.0, pytest.approx(2 / 3))


def test_a_segment_s_metrics_are_those_of_its_users_lists_alone():
    rng = np.random.default_rng(3)
    users, items, k = 10_000, 30, (1, 5)
    lists = np.argsort(rng.random((users, items)), axis=1)[:, :5].astype(np.int32)
    relevant = sparse.csr_matrix(rng.random((users, items)) < 0.05)
    common = {"most_popular": np.arange(5, dtype=np.int32), "information": rng.random(items)}
    masks = {
        "some": rng.random(users) < 0.3,
        "all": np.ones(users, dtype=bool),
        "nobody": np.zeros(users, dtype=bool),
    }
    values = score(lists, relevant, k, **common).segments(masks)
    counted = np.diff(relevant.indptr) > 0
    for name, mask in masks.items():
        alone = ranking_metrics(lists[mask], relevant[mask], k, **common)
        assert values[name] == pytest.approx({"users": np.count_nonzero(mask & counted), **alone})
    assert values["all"] == {
        "users": np.count_nonzero(counted),
        **ranking_metrics(lists, relevant, k, **common),
    }


def test_padding_of_the_most_popular_counts_for_nothing():
    values = ranking_metrics(
        np.array([[0, -1]], np.int32), liked([0]), [2], most_popular=np.array([0, -1], np.int32)
    )
    assert values["popular@2"] == 0.5


def test_the_lower_bound_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(4)
    differences = rng.choice([-0.5, 0.0, 0.0, 0.2, 1.0], 400)
    plain = np.quantile(differences[rng.integers(0, 400, (20_000, 400))].mean(axis=1), 0.025)
    assert lower_bound(differences, 20_000, seed=1) == pytest.approx(plain, abs=0.003)


def test_the_lower_bound_of_many_values_is_that_of_a_bootstrap():
    differences = np.random.default_rng(4).normal(0.01, 0.2, 3000)
    draws = np.random.default_rng(1).integers(0, 3000, (4000, 3000), dtype=np.int16)
    assert lower_bound(differences, 4000, seed=1) == pytest.approx(
        np.quantile(differences[draws].mean(axis=1), 0.025), abs=3e-4
    )


def test_the_lower_bound_is_the_same_every_time_and_tightens_with_users():
    differences = np.tile([0.0, 0.0, 0.3, -0.1], 50)
    assert lower_bound(differences, 1000, seed=1) == lower_bound(differences, 1000, seed=1)
    assert (
        lower_bound(differences, 1000, seed=1)
        < lower_bound(np.tile(differences, 30), 1000, seed=1)
        < differences.mean()
    )
    assert lower_bound(np.array([]), 1000, seed=1) == 0.0
