"""The gate: what it blesses, and what it refuses, also everything that it cannot check."""

import copy
import json
from typing import Any

import pytest
from support.gate_metrics import metrics

from recsys_ops.evaluation.gate import RULES, decide
from recsys_ops.settings import GateSettings

SETTINGS = GateSettings(max_drop=0.05, min_users=50)


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
    return metrics() | {
        "champion": None,
        "champion_version": None,
        "champion_data": None,
        "champion_lists": None,
        "lists": metrics()["lists"] | {"lost_share": None},
        "reference": None,
        "reference_version": None,
    }


def failed(verdict: Any) -> list[str]:
    return [rule.name for rule in verdict.rules if not rule.passed]


def test_a_model_as_good_as_the_champion_is_blessed():
    verdict = decide(metrics(), SETTINGS)
    assert verdict.blessed
    assert verdict.summary.startswith(
        "blessed: NDCG@20 +0.0 % against champion 20260309-0123456789; "
        "NDCG@20 +0.0160 against popularity"
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
    assert failed(decide(with_value("bootstrap.popularity.lower", lower), SETTINGS)) == [
        "popularity"
    ]


@pytest.mark.parametrize(("users", "blessed"), [(50, True), (49, False), (0, False)])
def test_too_few_users_prove_nothing(users: int, blessed: bool):
    assert decide(with_value("users", users), SETTINGS).blessed is blessed


def test_the_first_deployment_needs_the_setting():
    verdict = decide(first_deployment(), SETTINGS)
    assert failed(verdict) == ["champion"]
    assert "gate.allow_first_deployment" in verdict.summary
    assert decide(
        first_deployment(), SETTINGS.model_copy(update={"allow_first_deployment": True})
    ).blessed


def test_the_first_deployment_must_still_beat_popularity():
    allowed = SETTINGS.model_copy(update={"allow_first_deployment": True})
    figures = first_deployment()
    figures["bootstrap"]["popularity"]["lower"] = -0.01
    assert failed(decide(figures, allowed)) == ["popularity"]


def test_a_champion_that_was_not_scored_is_no_first_deployment():
    allowed = SETTINGS.model_copy(update={"allow_first_deployment": True})
    for figures in (
        with_value("champion", None),
        without("champion"),
        without("champion_version") | {"champion": None},
    ):
        assert failed(decide(figures, allowed)) == ["champion"]


@pytest.mark.parametrize(
    "figures",
    [
        {},
        None,
        [],
        without("cutoffs"),
        with_value("cutoffs", []),
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
        without("protocol"),
        without("ids_match"),
        without("reference"),
        without("bootstrap.champion.upper"),
        without("parity"),
        without("parity.overlap"),
        with_value("parity", None),
        with_value("data", None),
        without("data.rows"),
        without("data.rows.usual"),
        with_value("data.rows.usual", 0),
        without("champion_data"),
        with_value("champion_data.window_rows", 0),
        without("champion_lists"),
        with_value("lists", None),
        without("lists.counts"),
        without("lists.changed_settings"),
        with_value("lists.lost_share", None),
        with_value("lists.full_share", float("nan")),
        with_value("champion_lists.full_share", None),
        with_value("data.eligible.value", None),
        with_value("data.known_share.value", None),
        with_value("data.known_items", None),
        without("data.unread_days"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_a_sentence(figures: Any):
    verdict = decide(figures, SETTINGS.model_copy(update={"allow_first_deployment": True}))
    assert not verdict.blessed
    assert verdict.summary.startswith("not blessed: ")
    assert all(rule.sentence for rule in verdict.rules)


def test_a_champion_of_zero_does_not_divide():
    assert decide(with_value("champion.ndcg@20", 0.0), SETTINGS).blessed


def test_a_drop_that_may_be_chance_is_allowed():
    figures = with_value("challenger.ndcg@20", 0.047)
    assert failed(decide(figures, SETTINGS)) == ["champion"]
    figures["bootstrap"]["champion"]["upper"] = 0.0
    verdict = decide(figures, SETTINGS)
    assert verdict.blessed
    assert (
        "NDCG@20 −6.0 % against champion 20260309-0123456789, which may be chance"
        in verdict.summary
    )


def test_small_drops_do_not_add_up_over_a_month():
    assert decide(with_value("reference.ndcg@20", 0.054), SETTINGS).blessed
    verdict = decide(with_value("reference.ndcg@20", 0.055), SETTINGS)
    assert verdict.summary == "not blessed: NDCG@20 −9.1 % against reference 20260201-0123456789"


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("ids_match", False, "ids"),
        ("parity.overlap", 0.39, "overlap"),
        ("parity.coverage", 0.49, "coverage"),
        ("parity.user_norm", 2.1, "user_norm"),
        ("parity.item_norm", 0.0, "item_norm"),
        ("data.rows.value", 13_000, "rows"),
        ("data.rows.value", 0, "rows"),
        ("data.users.value", 2_800, "users"),
        ("data.items.value", 70, "items"),
        ("data.rows_per_user.value", 58.0, "rows_per_user"),
        ("data.rows_per_user.value", 33.0, "rows_per_user"),
        ("data.quarantine_share.value", 0.13, "quarantine_share"),
        ("data.repeats.value", 1.6, "repeats"),
        ("data.bot_share.value", 0.0, "bot_share"),
        ("data.bot_share.value", 0.26, "bot_share"),
        ("data.ignored_share.value", 0.29, "ignored_share"),
        ("data.conversions_rejected_share.value", 0.11, "conversions_rejected_share"),
        ("data.nulls.user_agent.value", 1.0, "nulls"),
        ("data.nulls.role.value", 0.5, "nulls"),
        ("data.gap.value", 2, "gap"),
        ("data.window_rows", 700_000, "window"),
        ("data.unread_days", ["2026-03-02", "2026-03-04"], "gap"),
        ("lists.counts.similar", 149, "list_counts"),
        ("lists.counts.categories", 0, "list_counts"),
        ("lists.popular", 9, "popular_list"),
        ("lists.full_share", 0.87, "full_lists"),
        ("lists.lost_share", 0.21, "lost_lists"),
        ("data.eligible.value", 195, "eligible"),
        ("data.unmanaged_share.value", 0.16, "unmanaged_share"),
        ("data.known_share.value", 0.87, "known_share"),
        ("data.window_known_share", 0.91, "window_known_share"),
    ],
)
def test_unusual_data_or_refit_is_refused_by_one_rule_with_both_numbers(
    path: str, value: Any, rule: str
):
    verdict = decide(with_value(path, value), SETTINGS)
    assert failed(verdict) == [rule]
    assert len(verdict.summary) < 140


def test_a_shop_that_closes_on_sundays_has_no_unusual_gap():
    figures = with_value("data.gap.value", 2)
    figures["data"]["gap"]["usual"] = 2
    assert decide(figures, SETTINGS).blessed


def test_figures_that_always_vary_much_may_vary_more():
    figures = with_value("data.rows_per_user.value", 80.0)
    assert failed(decide(figures, SETTINGS)) == ["rows_per_user"]
    figures["data"]["rows_per_user"]["spread"] = 1.5
    assert decide(figures, SETTINGS).blessed


def test_shares_that_always_vary_much_may_vary_more():
    figures = with_value("data.quarantine_share.value", 0.35)
    figures["data"]["nulls"]["role"]["value"] = 0.5
    assert failed(decide(figures, SETTINGS)) == ["quarantine_share", "nulls"]
    figures["data"]["quarantine_share"]["spread"] = 0.23
    figures["data"]["nulls"]["role"]["spread"] = 0.32
    assert decide(figures, SETTINGS).blessed
    figures["data"]["nulls"]["user_agent"]["value"] = 0.2
    assert failed(decide(figures, SETTINGS)) == ["nulls"]


def test_a_shop_whose_staff_buy_much_may_raise_the_limit():
    figures = with_value("data.conversions_rejected_share", {"value": 0.3, "usual": 0.28})
    assert failed(decide(figures, SETTINGS)) == ["conversions_rejected_share"]
    raised = SETTINGS.model_copy(update={"max_conversions_rejected": 0.5})
    assert decide(figures, raised).blessed
    figures["data"]["conversions_rejected_share"]["usual"] = 0.1
    assert failed(decide(figures, raised)) == ["conversions_rejected_share"]


def test_a_new_shop_has_nothing_usual_yet():
    figures = metrics()
    for name, figure in figures["data"].items():
        if isinstance(figure, dict):
            for inner in figure.values() if name == "nulls" else [figure]:
                inner["usual"] = None
            if name in ("gap", "bot_share"):
                figure["value"] = None
    assert decide(figures, SETTINGS).blessed


def of_older_release(figures: dict[str, Any]) -> dict[str, Any]:
    """The same metrics, but the champion's version has no figures of lists and catalogue."""
    champion_data = copy.deepcopy(figures["champion_data"])
    for name in ("eligible", "unmanaged_share", "known_share"):
        champion_data[name] = {"value": None, "usual": None, "spread": None}
        figures["data"][name]["usual"] = None
    champion_data |= {"window_known_share": None, "known_items": None}
    return figures | {"champion_data": champion_data, "champion_lists": None}


def test_a_champion_of_an_older_release_cannot_be_compared():
    verdict = decide(of_older_release(metrics()), SETTINGS)
    assert verdict.blessed
    (rule,) = [rule for rule in verdict.rules if rule.name == "full_lists"]
    assert "cannot be compared: an older release has not counted them" in rule.sentence


def test_what_a_stranger_gets_is_checked_without_any_earlier_figure():
    figures = of_older_release(metrics())
    figures["lists"]["popular"] = 3
    figures["data"]["known_share"]["value"] = 0.49
    figures["lists"]["lost_share"] = 0.9
    assert failed(decide(figures, SETTINGS)) == ["popular_list", "lost_lists", "known_share"]


@pytest.mark.parametrize(
    ("known", "popular", "blessed"), [(12, 12, True), (12, 6, True), (12, 5, False), (1, 1, True)]
)
def test_a_small_catalogue_need_not_fill_the_lists(known: int, popular: int, blessed: bool):
    figures = with_value("data.known_items", known)
    figures["lists"] |= {"popular": popular, "full_share": 0.0}
    figures["champion_lists"] = figures["lists"]
    assert decide(figures, SETTINGS).blessed is blessed


@pytest.mark.parametrize(("now", "blessed"), [(7, True), (5, True), (4, False)])
def test_in_a_small_catalogue_a_few_items_may_sell_out_at_once(now: int, blessed: bool):
    figures = with_value("data.eligible", {"value": now, "usual": 10})
    figures["champion_data"]["eligible"]["value"] = 10
    assert decide(figures, SETTINGS).blessed is blessed


def test_a_sale_may_empty_the_shelves_over_weeks():
    figures = with_value("data.eligible", {"value": 110, "usual": 300})
    figures["champion_data"]["eligible"]["value"] = 130
    assert decide(figures, SETTINGS).blessed
    figures["data"]["eligible"]["value"] = 99
    assert failed(decide(figures, SETTINGS)) == ["eligible"]


def test_a_change_that_was_forced_once_is_the_new_normal():
    figures = with_value("data.unmanaged_share.value", 0.6)
    figures["champion_data"]["unmanaged_share"]["value"] = 0.6
    figures["data"]["known_share"]["value"] = figures["champion_data"]["known_share"]["value"] = 0.7
    assert decide(figures, SETTINGS).blessed


def test_lists_that_the_owner_has_changed_are_not_compared():
    figures = with_value("lists.changed_settings", ["exclude_categories"])
    figures["lists"] |= {"full_share": 0.3, "lost_share": 0.5}
    figures["lists"]["counts"] = figures["lists"]["counts"] | {"categories": 2}
    assert decide(figures, SETTINGS).blessed
    figures["lists"]["changed_settings"] = ["pinned_items"]
    assert failed(decide(figures, SETTINGS)) == ["full_lists", "lost_lists"]
    figures["lists"]["changed_settings"] = ["sell_unmanaged_stock"]
    figures["data"]["eligible"]["value"] = 120
    assert failed(decide(figures, SETTINGS)) == ["full_lists"]


@pytest.mark.parametrize("path", ["lists.counts.recommendations", "lists.popular"])
def test_a_version_without_lists_cannot_even_be_forced(path: str):
    (sentence,) = decide(with_value(path, 0), SETTINGS).never_forced
    assert "a version without lists never goes live" in sentence
    assert decide(with_value("lists.popular", 3), SETTINGS).never_forced == []
    assert decide({}, SETTINGS).never_forced


def test_the_first_deployment_is_allowed_only_with_lists():
    allowed = SETTINGS.model_copy(update={"allow_first_deployment": True})
    figures = first_deployment()
    figures["lists"]["popular"] = 3
    assert failed(decide(figures, allowed)) == ["popular_list"]


def test_the_other_protocols_need_no_champion():
    assert decide(first_deployment() | {"protocol": "random"}, SETTINGS).blessed


@pytest.mark.parametrize("figures", [metrics(), {}])
def test_the_verdict_is_strict_json_with_every_rule(figures: dict[str, Any]):
    stored = json.loads(json.dumps(decide(figures, SETTINGS).to_dict(), allow_nan=False))
    assert [rule["name"] for rule in stored["rules"]] == list(RULES)
    assert all(
        rule.keys() == {"name", "value", "threshold", "passed", "sentence"}
        for rule in stored["rules"]
    )


def test_the_verdict_says_in_a_line_what_the_day_was_like() -> None:
    figures = metrics()
    assert decide(figures, GateSettings()).data == (
        "40,000 rows (usual: 40,000), no day missing, 2.0% of the rows rejected (usual: 2.0%), "
        "15.0% rejected as bots' (usual: 15.0%), 280 eligible items (usual: 280)"
    )
    figures["data"] |= {
        "rows": {"value": 4_000, "usual": None},
        "unread_days": ["2026-03-01", "2026-03-02"],
        "eligible": {"value": None, "usual": None},
    }
    line = decide(figures, GateSettings()).data
    assert line.startswith("4,000 rows (usual: unknown), 2 of the 28 days before missing, ")
    assert line.endswith("unknown eligible items (usual: unknown)")
    assert decide({}, GateSettings()).data.startswith("the day's figures cannot be read")
