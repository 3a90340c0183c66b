"""Robots that say nothing, but shop like no person."""

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_ops.cleaning import filter_bots
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.settings import BotSettings

from .conftest import RECORDED, events

START = RECORDED.replace(hour=0)


def visits(user: str, seconds: list[float], items: int = 10, event_type: str = "view") -> list[dict[str, Any]]:
    return [
        {"user_id": user, "event_time": START + timedelta(seconds=s), "item_id": f"p{i % items}", "event_type": event_type}
        for i, s in enumerate(seconds)
    ]


def irregular(count: int, mean: float) -> list[float]:
    return list(np.cumsum(np.random.default_rng(3).exponential(mean, count)))


REGULAR = [i * 40.0 for i in range(150)]
ROBOTS = {
    "steady clockwork": (visits("r", REGULAR), "regular_gaps no_conversions"),
    "fast": (visits("r", irregular(1000, 2.0)), "rate no_conversions"),
    "broad": (visits("r", irregular(300, 40.0), items=300), "breadth no_conversions"),
    "sleepless": (visits("r", irregular(200, 420.0)), "hours no_conversions"),
    "with a cart": (visits("r", [i * 4.0 for i in range(1200)], items=300, event_type="cart"), "rate breadth regular_gaps"),
    "with nights off": (visits("r", [*REGULAR, *(86_400 + s for s in REGULAR)]), "regular_gaps no_conversions"),
}


@pytest.mark.parametrize("rows, signs", ROBOTS.values(), ids=ROBOTS)
def test_robot_is_rejected_whole_with_its_signs(rows: list[dict[str, Any]], signs: str) -> None:
    person = visits("person", irregular(120, 200.0))
    cleaned = filter_bots(events(*person, *rows), BotSettings())
    assert cleaned.rejected["user_id"].to_list() == ["r"] * len(rows)
    assert cleaned.rejected.select("reason", "column", "value").unique().rows() == [("bot", None, signs)]
    assert cleaned.kept["user_id"].unique().to_list() == ["person"]


def test_purchaser_is_never_rejected_on_behaviour() -> None:
    rows = [*visits("r", REGULAR, items=300), {"user_id": "r", "event_type": "purchase"}]
    assert filter_bots(events(*rows), BotSettings()).kept.height == len(rows)


def test_user_with_few_events_is_never_judged() -> None:
    cleaned = filter_bots(events(*visits("r", REGULAR[:99])), BotSettings())
    assert cleaned.kept.height == 99
    assert cleaned.notes["users_judged"] == 0


def test_one_sign_alone_makes_no_robot_but_is_counted() -> None:
    cleaned = filter_bots(events(*visits("window shopper", irregular(150, 300.0))), BotSettings())
    assert cleaned.kept.height == 150
    assert cleaned.notes["signs"] == {"rate": 0, "breadth": 0, "hours": 0, "regular_gaps": 0, "no_conversions": 1}


def test_order_of_rows_changes_nothing_but_their_order() -> None:
    frame = events(*visits("person", irregular(120, 200.0)), *visits("r", REGULAR))
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    kept = filter_bots(shuffled, BotSettings()).kept
    assert kept["event_id"].to_list() == shuffled.filter(pl.col("user_id") == "person")["event_id"].to_list()


def test_empty_day_keeps_the_schema() -> None:
    assert filter_bots(events({}).clear(), BotSettings()).kept.schema == SCHEMA
