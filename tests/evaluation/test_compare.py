"""The figures the gate reads, from lists typed in."""

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


def figures(found: Evaluation) -> dict:
    return compare_models(found, cutoffs=(1, 2), seed=1)


def test_the_models_are_scored_on_the_same_users():
    found = figures(evaluation(60))
    assert (found["users"], found["items"], found["cutoffs"]) == (60, 10, [1, 2])
    assert (
        found["challenger"]["ndcg@2"]
        == found["champion"]["ndcg@2"]
        == found["reference"]["ndcg@2"]
        == 1.0
    )
    assert found["popularity"]["ndcg@2"] == pytest.approx(1 / np.log2(3))
    assert found["popularity"]["popular@1"] == 1.0
    assert found["challenger"]["novelty@1"] == 4.0
    assert found["bootstrap"]["popularity"]["lower"] == pytest.approx(1 - 1 / np.log2(3))
    assert found["bootstrap"]["champion"] == {"mean": 0.0, "lower": 0.0, "upper": 0.0}


def test_the_users_are_told_apart_by_what_they_did_before():
    found = figures(evaluation(60))["segments"]["popularity"]
    assert {name: segment["users"] for name, segment in found.items()} == {
        "new": 3,
        "light": 8,
        "heavy": 49,
        "buyers": 30,
    }
    assert found["new"]["ndcg@2"] == pytest.approx(1 / np.log2(3))


def test_without_earlier_models_their_figures_are_null():
    found = json.loads(json.dumps(figures(evaluation(60, champion=False)), allow_nan=False))
    assert found["champion"] is found["reference"] is found["bootstrap"]["champion"] is None
    assert found["segments"].keys() == {"challenger", "popularity"}


def test_the_bounds_are_those_of_the_challengers_gain():
    worse = replace(evaluation(60), challenger=np.full((60, 2), 9, np.int32))
    found = figures(worse)["bootstrap"]["champion"]
    assert found["lower"] == found["mean"] == found["upper"] == -1.0


def test_parity_says_what_the_refit_did_to_the_lists_and_the_factors():
    found = evaluation(4)
    lists = np.column_stack([found.challenger[:, 0], [9, 9, 9, -1]]).astype(np.int32)
    served = RefitLists(lists, np.array([[1.0, 2.0], [1.5, 1.0]]))
    assert figures(replace(found, served=served))["parity"] == {
        "overlap": 0.5,
        "coverage": 1.0,
        "user_norm": 1.5,
        "item_norm": 0.5,
    }
    assert figures(found)["parity"] is None


def test_a_day_on_which_nobody_liked_anything_gives_zeros():
    found = json.loads(json.dumps(figures(evaluation(0)), allow_nan=False))
    assert (
        found["users"]
        == found["challenger"]["ndcg@2"]
        == found["bootstrap"]["champion"]["upper"]
        == 0
    )
