"""The gate: what it lets through, what it refuses, and that it refuses whatever it cannot judge."""

import copy
import json
from typing import Any

import pytest

from recsys_ops.evaluation.gate import decide
from recsys_ops.settings import GateSettings

SETTINGS = GateSettings(max_drop=0.05, min_users=50)


def metrics() -> dict[str, Any]:
    return {
        "k": [3, 20],
        "users": 812,
        "items": 300,
        "champion_version": "20260309-0123456789",
        "factors_finite": True,
        "challenger": {"ndcg@3": 0.03, "ndcg@20": 0.050},
        "popularity": {"ndcg@3": 0.02, "ndcg@20": 0.034},
        "champion": {"ndcg@3": 0.03, "ndcg@20": 0.050},
        "bootstrap": {
            "metric": "ndcg@20",
            "draws": 1000,
            "seed": 1,
            "popularity": {"mean": 0.016, "lower": 0.011},
            "champion": {"mean": 0.0, "lower": -0.002},
        },
    }


def with_value(path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(metrics())
    *parents, last = path.split(".")
    inner = changed
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return changed


def without(path: str) -> dict[str, Any]:
    changed = with_value(path, None)
    *parents, last = path.split(".")
    inner = changed
    for key in parents:
        inner = inner[key]
    del inner[last]
    return changed


def first_deployment() -> dict[str, Any]:
    return metrics() | {"champion": None, "champion_version": None}


def failed(verdict: Any) -> list[str]:
    return [rule.name for rule in verdict.rules if not rule.passed]


def test_a_model_as_good_as_the_champion_is_blessed():
    verdict = decide(metrics(), SETTINGS)
    assert verdict.blessed
    assert verdict.summary.startswith(
        "blessed: NDCG@20 +0.0 % against champion 20260309-0123456789; NDCG@20 +0.0160 against popularity"
    )


@pytest.mark.parametrize(("ndcg", "blessed"), [(0.0476, True), (0.0474, False), (0.06, True)])
def test_ndcg_may_fall_by_five_percent_and_no_more(ndcg: float, blessed: bool):
    assert decide(with_value("challenger.ndcg@20", ndcg), SETTINGS).blessed is blessed


def test_a_worse_model_is_refused_in_one_line_with_its_number():
    verdict = decide(with_value("challenger.ndcg@20", 0.0464), SETTINGS)
    assert verdict.summary == "not blessed: NDCG@20 −7.2 % against champion 20260309-0123456789"
    (rule,) = [rule for rule in verdict.rules if not rule.passed]
    assert (rule.name, rule.threshold) == ("champion", -0.05)
    assert rule.value == pytest.approx(-0.072)


def test_only_the_last_cut_off_decides():
    assert decide(with_value("challenger.ndcg@3", 0.001), SETTINGS).blessed


@pytest.mark.parametrize("lower", [0.0, -0.001])
def test_a_model_not_surely_better_than_popularity_is_refused(lower: float):
    assert failed(decide(with_value("bootstrap.popularity.lower", lower), SETTINGS)) == ["popularity"]


@pytest.mark.parametrize(("users", "blessed"), [(50, True), (49, False), (0, False)])
def test_too_few_users_prove_nothing(users: int, blessed: bool):
    assert decide(with_value("users", users), SETTINGS).blessed is blessed


def test_the_first_deployment_needs_the_setting():
    verdict = decide(first_deployment(), SETTINGS)
    assert failed(verdict) == ["champion"]
    assert "gate.allow_first_deployment" in verdict.summary
    assert decide(first_deployment(), SETTINGS.model_copy(update={"allow_first_deployment": True})).blessed


def test_the_first_deployment_must_still_beat_popularity():
    allowed = SETTINGS.model_copy(update={"allow_first_deployment": True})
    figures = first_deployment()
    figures["bootstrap"]["popularity"]["lower"] = -0.01
    assert failed(decide(figures, allowed)) == ["popularity"]


def test_a_champion_that_was_not_scored_is_no_first_deployment():
    allowed = SETTINGS.model_copy(update={"allow_first_deployment": True})
    for figures in (with_value("champion", None), without("champion"), without("champion_version") | {"champion": None}):
        assert failed(decide(figures, allowed)) == ["champion"]


@pytest.mark.parametrize(
    "figures",
    [
        {},
        None,
        [],
        without("k"),
        with_value("k", []),
        without("users"),
        with_value("users", "812"),
        with_value("users", True),
        without("challenger"),
        without("challenger.ndcg@20"),
        with_value("challenger.ndcg@20", float("nan")),
        with_value("challenger.ndcg@20", float("inf")),
        with_value("challenger.ndcg@20", None),
        with_value("challenger.ndcg@3", float("nan")),
        with_value("champion.ndcg@20", float("nan")),
        with_value("champion.ndcg@20", "0.05"),
        with_value("champion.ndcg@20", -0.05),
        without("bootstrap"),
        without("bootstrap.popularity.lower"),
        with_value("bootstrap.popularity", None),
        with_value("bootstrap.popularity.lower", float("nan")),
        without("factors_finite"),
        with_value("factors_finite", False),
        with_value("factors_finite", "yes"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_sentence(figures: Any):
    verdict = decide(figures, SETTINGS.model_copy(update={"allow_first_deployment": True}))
    assert not verdict.blessed
    assert verdict.summary.startswith("not blessed: ")
    assert all(rule.sentence for rule in verdict.rules)


def test_a_champion_of_zero_does_not_divide():
    assert decide(with_value("champion.ndcg@20", 0.0), SETTINGS).blessed


@pytest.mark.parametrize("figures", [metrics(), {}])
def test_the_verdict_is_strict_json_with_every_rule(figures: dict[str, Any]):
    stored = json.loads(json.dumps(decide(figures, SETTINGS).to_dict(), allow_nan=False))
    assert [rule["name"] for rule in stored["rules"]] == ["champion", "popularity", "enough_users", "finite"]
    assert all(rule.keys() == {"name", "value", "threshold", "passed", "sentence"} for rule in stored["rules"])
