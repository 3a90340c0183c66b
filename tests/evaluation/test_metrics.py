"""Ranking metrics against cases worked by hand and against implicit's own."""

import numpy as np
import pytest
from implicit.evaluation import ranking_metrics_at_k
from scipy import sparse

from recsys_ops.evaluation.metrics import lower_bound, ndcg_by_user, ranking_metrics


def liked(*rows: list[int], items: int = 10) -> sparse.csr_matrix:
    matrix = np.zeros((len(rows), items), dtype=bool)
    for user, row in enumerate(rows):
        matrix[user, row] = True
    return sparse.csr_matrix(matrix)


def scores(lists: list[list[int]], relevant: sparse.csr_matrix, k: int) -> dict[str, float]:
    return ranking_metrics(np.array(lists, np.int32), relevant, [k], most_popular=np.arange(k, dtype=np.int32))


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
    found = scores([[0, 7, 1, 8]], liked([7, 8, 9]), 4)
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found == pytest.approx(
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
    found = scores([[1, 2]], liked([1, 2, 3, 4]), 2)
    assert (found["ndcg@2"], found["map@2"], found["precision@2"], found["recall@2"]) == (1.0, 1.0, 1.0, 0.5)


def test_users_who_liked_nothing_are_left_out_of_the_means():
    relevant = liked([1], [])
    assert scores([[1, 2], [1, 2]], relevant, 2)["ndcg@2"] == 1.0
    assert ndcg_by_user(np.array([[1, 2], [1, 2]], np.int32), relevant, 2).tolist() == [1.0, 0.0]


def test_padding_is_never_a_hit_nor_covered():
    found = scores([[-1, -1], [3, -1]], liked([9], [3]), 2)
    assert (found["hit_rate@2"], found["coverage@2"], found["precision@2"]) == (0.5, 0.1, 0.25)


def test_nobody_to_judge_gives_zeros():
    found = ranking_metrics(np.zeros((0, 3), np.int32), liked().reshape(0, 10), [3], most_popular=np.arange(3, dtype=np.int32))
    assert set(found.values()) == {0.0}


class Ranked:
    """What implicit needs of a model to score the lists given."""

    def __init__(self, lists: np.ndarray) -> None:
        self.lists = lists

    def recommend(self, users: np.ndarray, _user_items: object, N: int) -> tuple[np.ndarray, None]:  # noqa: N803
        return self.lists[users, :N], None


def test_metrics_agree_with_implicit_s():
    rng = np.random.default_rng(2)
    users, items, k = 200, 50, 10
    lists = np.argsort(rng.random((users, items)), axis=1)[:, :k].astype(np.int32)
    relevant = sparse.csr_matrix(rng.random((users, items)) < 0.1)
    ours = ranking_metrics(lists, relevant, [k], most_popular=np.arange(k, dtype=np.int32))
    theirs = ranking_metrics_at_k(Ranked(lists), relevant, relevant, K=k, show_progress=False)
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg"])
    assert ours["map@10"] == pytest.approx(theirs["map"])
    # implicit's "precision" is hits over Σ min(k, liked)
    likes = np.diff(relevant.indptr)
    judged = np.count_nonzero(likes)
    assert ours["precision@10"] * judged * k == pytest.approx(theirs["precision"] * np.minimum(likes, k).sum())


def test_the_lower_bound_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(4)
    differences = rng.choice([-0.5, 0.0, 0.0, 0.2, 1.0], 400)
    plain = np.quantile(differences[rng.integers(0, 400, (20_000, 400))].mean(axis=1), 0.025)
    assert lower_bound(differences, 20_000, seed=1) == pytest.approx(plain, abs=0.003)


def test_the_lower_bound_is_the_same_every_time_and_tightens_with_users():
    differences = np.tile([0.0, 0.0, 0.3, -0.1], 50)
    assert lower_bound(differences, 1000, seed=1) == lower_bound(differences, 1000, seed=1)
    assert lower_bound(differences, 1000, seed=1) < lower_bound(np.tile(differences, 30), 1000, seed=1) < differences.mean()
    assert lower_bound(np.array([]), 1000, seed=1) == 0.0
