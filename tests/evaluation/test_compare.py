"""The figures the gate reads, from lists typed in."""

import json

import numpy as np
import pytest
from scipy import sparse

from recsys_ops.evaluation.compare import Evaluation, compare
from recsys_ops.evaluation.gate import decide
from recsys_ops.settings import GateSettings


def evaluation(users: int, champion: bool) -> Evaluation:
    """The challenger puts what was liked first, popularity second; the champion is the challenger."""
    liked = np.arange(users) % 5 + 2
    right = np.column_stack([liked, np.zeros(users)]).astype(np.int32)
    return Evaluation(
        users=np.arange(users, dtype=np.int32),
        challenger=right,
        popularity=right[:, ::-1].copy(),
        champion=right.copy() if champion else None,
        relevant=sparse.csr_matrix((np.ones(users, bool), (np.arange(users), liked)), shape=(users, 10)),
        most_popular=np.array([0, 1], np.int32),
    )


def figures(users: int = 60, champion: bool = True) -> dict:
    version = "20260101-aaaaaaaaaa" if champion else None
    return compare(evaluation(users, champion), k=(1, 2), champion_version=version, factors_finite=True, draws=200, seed=1)


def test_the_three_models_are_scored_on_the_same_users():
    found = figures()
    assert (found["users"], found["items"], found["k"]) == (60, 10, [1, 2])
    assert found["challenger"]["ndcg@2"] == found["champion"]["ndcg@2"] == 1.0
    assert found["popularity"]["ndcg@2"] == pytest.approx(1 / np.log2(3))
    assert found["popularity"]["popular@1"] == 1.0
    assert found["bootstrap"]["popularity"]["lower"] == pytest.approx(1 - 1 / np.log2(3))
    assert found["bootstrap"]["champion"] == {"mean": 0.0, "lower": 0.0}


def test_without_a_champion_its_figures_are_null_and_the_gate_reads_them():
    found = json.loads(json.dumps(figures(champion=False), allow_nan=False))
    assert found["champion"] is None
    assert found["bootstrap"]["champion"] is None
    assert decide(found, GateSettings(allow_first_deployment=True)).blessed


def test_a_day_on_which_nobody_liked_anything_is_refused_and_does_not_crash():
    verdict = decide(json.loads(json.dumps(figures(users=0), allow_nan=False)), GateSettings())
    assert {"enough_users", "popularity"} <= {rule.name for rule in verdict.rules if not rule.passed}
