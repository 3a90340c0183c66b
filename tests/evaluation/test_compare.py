"""The metrics that the gate reads, from lists typed in."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from recsys_ops.evaluation.compare import Evaluation, RefitLists, compare_models


def evaluation(users: int, champion: bool = True) -> Evaluation:
    """Challenger, champion and reference list the liked item first, popularity second."""
    liked = np.arange(users) % 5 + 2
    right = np.column_stack([liked, np.zeros(users)]).astype(np.int32)
    return Evaluation(
        users=np.arange(users, dtype=np.int32),
        n_items_before=np.arange(users, dtype=np.int32),
        buyers=np.arange(users) % 2 == 0,
        challenger=right,
        popularity=right[:, ::-1].copy(),
        champion=right.copy() if champion else None,
        reference=right.copy() if champion else None,
        relevant=sparse.csr_matrix(
            (np.ones(users, bool), (np.arange(users), liked)), shape=(users, 10)
        ),
        most_popular=np.array([0, 1], np.int32),
        information=np.arange(10.0),
    )


def figures(lists: Evaluation) -> dict:
    return compare_models(lists, cutoffs=(1, 2), seed=1)


def test_the_models_are_scored_on_the_same_users():
    metrics = figures(evaluation(60))
    assert (metrics["users"], metrics["items"], metrics["cutoffs"]) == (60, 10, [1, 2])
    assert (
        metrics["challenger"]["ndcg@2"]
        == metrics["champion"]["ndcg@2"]
        == metrics["reference"]["ndcg@2"]
        == 1.0
    )
    assert metrics["popularity"]["ndcg@2"] == pytest.approx(1 / np.log2(3))
    assert metrics["popularity"]["popular@1"] == 1.0
    assert metrics["challenger"]["novelty@1"] == 4.0
    assert metrics["bootstrap"]["popularity"]["lower"] == pytest.approx(1 - 1 / np.log2(3))
    assert metrics["bootstrap"]["champion"] == {"mean": 0.0, "lower": 0.0, "upper": 0.0}


def test_segments_are_by_the_number_of_items_before():
    metrics = figures(evaluation(60))["segments"]["popularity"]
    assert {name: segment["users"] for name, segment in metrics.items()} == {
        "new": 3,
        "light": 8,
        "heavy": 49,
        "buyers": 30,
    }
    assert metrics["new"]["ndcg@2"] == pytest.approx(1 / np.log2(3))


def test_without_earlier_models_their_figures_are_null():
    metrics = json.loads(json.dumps(figures(evaluation(60, champion=False)), allow_nan=False))
    assert metrics["champion"] is metrics["reference"] is metrics["bootstrap"]["champion"] is None
    assert metrics["segments"].keys() == {"challenger", "popularity"}


def test_the_bounds_are_those_of_the_challengers_gain():
    worse = replace(evaluation(60), challenger=np.full((60, 2), 9, np.int32))
    metrics = figures(worse)["bootstrap"]["champion"]
    assert metrics["lower"] == metrics["mean"] == metrics["upper"] == -1.0


def test_parity_says_what_the_refit_did_to_the_lists_and_the_factors():
    four = evaluation(4)
    lists = np.column_stack([four.challenger[:, 0], [9, 9, 9, -1]]).astype(np.int32)
    served = RefitLists(lists, np.array([[1.0, 2.0], [1.5, 1.0]]))
    assert figures(replace(four, served=served))["parity"] == {
        "overlap": 0.5,
        "coverage": 1.0,
        "user_norm": 1.5,
        "item_norm": 0.5,
    }
    assert figures(four)["parity"] is None


def test_a_day_without_liked_items_gives_zeros():
    metrics = json.loads(json.dumps(figures(evaluation(0)), allow_nan=False))
    assert (
        metrics["users"]
        == metrics["challenger"]["ndcg@2"]
        == metrics["bootstrap"]["champion"]["upper"]
        == 0
    )
