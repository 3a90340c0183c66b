"""Bots, and ids that many people share."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from support.cleaning_rows import RECORDED, events

from recsys_ops.cleaning import filter_bots
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.settings import BotSettings

START = RECORDED.replace(hour=0)
TOMORROW = START + timedelta(days=1)


def visits(
    user: str,
    seconds: list[float],
    *,
    items: int = 10,
    event_type: str = "view",
    start: datetime = START,
) -> list[dict[str, Any]]:
    return [
        {
            "user_id": user,
            "recorded_at": start + timedelta(hours=23),
            "event_time": start + timedelta(seconds=s),
            "item_id": f"p{i % items}",
            "event_type": event_type,
        }
        for i, s in enumerate(seconds)
    ]


def irregular(count: int, mean: float) -> list[float]:
    return list(np.cumsum(np.random.default_rng(3).exponential(mean, count)))


def jittered(count: int, pace: float, jitter: float) -> list[float]:
    return list(np.cumsum(pace * np.random.default_rng(3).uniform(1 - jitter, 1 + jitter, count)))


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return events(*rows).with_row_index("row")


def rejected(rows: pl.DataFrame, settings: BotSettings) -> pl.DataFrame:
    return filter_bots(rows.lazy(), settings).rejected.collect()


REGULAR = [i * 40.0 for i in range(150)]
ROBOTS = {
    "steady clockwork": (visits("r", REGULAR), "regular_gaps no_conversions"),
    "jittered clockwork": (visits("r", jittered(150, 40, 0.5)), "regular_gaps no_conversions"),
    "clockwork with pauses": (
        visits("r", [p * 3000 + i * 40.0 for p in range(6) for i in range(25)]),
        "regular_gaps no_conversions",
    ),
    "fast": (visits("r", irregular(1000, 2.0)), "rate no_conversions"),
    "many": (
        visits("r", [p * 2500 + s for p in range(11) for s in irregular(100, 20.0)]),
        "rate no_conversions",
    ),
    "broad": (visits("r", irregular(300, 40.0), items=300), "breadth no_conversions"),
    "without a break": (visits("r", irregular(200, 200.0)), "visit no_conversions"),
    "sleepless": (
        visits("r", [h * 3600 + s for h in range(24) for s in irregular(8, 90.0)]),
        "hours no_conversions",
    ),
    "with a cart": (
        visits("r", [i * 2.0 for i in range(900)], items=300, event_type="cart"),
        "rate breadth regular_gaps",
    ),
}


@pytest.mark.parametrize("rows, signs", ROBOTS.values(), ids=ROBOTS)
def test_all_events_of_a_bot_are_rejected_with_its_signs(
    rows: list[dict[str, Any]], signs: str
) -> None:
    person = visits("person", irregular(120, 200.0))
    cleaned = filter_bots(frame(*person, *rows).lazy(), BotSettings())
    robots = cleaned.rejected.collect()
    assert robots["user_id"].to_list() == ["r"] * len(rows)
    assert robots.select("reason", "column", "value").unique().rows() == [("bot", None, signs)]
    assert cleaned.kept.collect()["user_id"].unique().to_list() == ["person"]


def test_wholesaler_who_buys_hundreds_of_items_at_once_is_kept() -> None:
    """As in the UCI data: up to 450 rows a day, one invoice a minute, most rows another item."""
    rows = visits(
        "wholesaler", [60.0 * (i // 30) for i in range(450)], items=400, event_type="purchase"
    )
    assert rejected(frame(*rows), BotSettings()).is_empty()


@pytest.mark.parametrize("event_type", ["cart", "checkout"])
def test_wholesaler_who_has_not_paid_yet_is_kept(event_type: str) -> None:
    """The rows of a basket at one moment are one event."""
    rows = visits(
        "wholesaler", [60.0 * (i // 30) for i in range(450)], items=400, event_type=event_type
    )
    assert rejected(frame(*rows), BotSettings()).is_empty()


def test_purchaser_is_no_bot_on_the_day_of_the_purchase() -> None:
    rows = [*visits("r", REGULAR, items=300), {"user_id": "r", "event_type": "purchase"}]
    assert rejected(frame(*rows), BotSettings()).is_empty()


def test_user_with_few_events_is_never_a_bot() -> None:
    cleaned = filter_bots(frame(*visits("r", REGULAR[:99])).lazy(), BotSettings())
    assert cleaned.kept.collect().height == 99
    assert cleaned.notes["user_days_examined"] == 0


def test_one_sign_alone_makes_no_robot_but_is_counted() -> None:
    cleaned = filter_bots(
        frame(*visits("window shopper", irregular(150, 100.0))).lazy(), BotSettings()
    )
    assert cleaned.kept.collect().height == 150
    counts = {
        "rate": 0,
        "breadth": 0,
        "hours": 0,
        "visit": 0,
        "regular_gaps": 0,
        "no_conversions": 1,
    }
    assert cleaned.notes["signs"] == counts


def test_result_of_a_day_does_not_depend_on_other_days_read_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recsys_ops.cleaning.bots.PSEUDO_USER_EVENTS", 100)
    settings = BotSettings()
    rng = np.random.default_rng(5)
    rows = [
        *visits("robot at night", [*REGULAR, *(86_340 + s for s in REGULAR)]),
        *visits("robot today, buyer tomorrow", REGULAR),
        *visits("robot today, buyer tomorrow", REGULAR, event_type="purchase", start=TOMORROW),
        *visits("too little a day", REGULAR[:75]),
        *visits("too little a day", REGULAR[:75], start=TOMORROW),
        *visits("0", list(rng.uniform(0, 80_000, 300)), event_type="purchase", start=TOMORROW),
        *(row for n in range(60) for row in visits(f"u{n}", irregular(14, 60.0), start=TOMORROW)),
    ]
    both = frame(*rows)
    day = both["recorded_at"].dt.date()
    apart = [rejected(both.filter(day == start.date()), settings) for start in (TOMORROW, START)]
    assert rejected(both, settings).equals(pl.concat(apart).sort("row"))
    assert {
        (user, moment.date())
        for user, moment in pl.concat(apart).select("user_id", "recorded_at").rows()
    } == {
        ("robot at night", START.date()),
        ("robot today, buyer tomorrow", START.date()),
        ("0", TOMORROW.date()),
    }


def shared_id(name: str, share: int) -> list[dict[str, Any]]:
    """A day of 2,400 events by 60 users; one id with purchases has `share` percent of them."""
    count = 2400 * share // 100
    times = list(np.sort(np.random.default_rng(7).uniform(8 * 3600, 20 * 3600, count)))
    rest = (2400 - count) // 60
    return [
        *visits(name, times, items=200, event_type="purchase"),
        *(row for n in range(60) for row in visits(f"u{n}", irregular(rest, 60.0))),
    ]


@pytest.mark.parametrize("name", ["0", "unknown", "guest@shop.example"])
def test_id_with_a_quarter_of_all_events_is_a_pseudo_user_though_it_buys(name: str) -> None:
    cleaned = filter_bots(frame(*shared_id(name, 25)).lazy(), BotSettings())
    rejections = cleaned.rejected.collect()
    assert rejections.select("user_id", "reason", "column", "value").unique().rows() == [
        (name, "pseudo_user", None, "25.0 % of the day's events")
    ]
    assert rejections.height == 600
    assert cleaned.notes["pseudo_user_days"] == 1


def test_large_customer_is_no_pseudo_user() -> None:
    assert rejected(frame(*shared_id("wholesaler", 19)), BotSettings()).is_empty()


def test_in_a_shop_with_few_customers_nobody_is_a_pseudo_user() -> None:
    rows = [
        row
        for row in shared_id("regular", 25)
        if row["user_id"] not in {f"u{n}" for n in range(20)}
    ]
    assert rejected(frame(*rows), BotSettings()).is_empty()


def test_a_robot_with_a_large_share_is_a_pseudo_user() -> None:
    rows = frame(
        *visits("r", [i * 20.0 for i in range(600)]), *shared_id("u60", 2), *shared_id("u61", 2)
    )
    for share, reason in ((0.1, "pseudo_user"), (1.0, "bot")):
        rejections = rejected(rows, BotSettings(pseudo_user_share=share))
        assert rejections["reason"].to_list() == [reason] * 600


def test_order_of_rows_changes_nothing_but_their_order() -> None:
    rows = events(*visits("person", irregular(120, 200.0)), *visits("r", REGULAR))
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1).with_row_index("row")
    kept = filter_bots(shuffled.lazy(), BotSettings()).kept.collect()
    assert (
        kept["event_id"].to_list()
        == shuffled.filter(pl.col("user_id") == "person")["event_id"].to_list()
    )


def test_empty_day_keeps_the_schema() -> None:
    assert filter_bots(frame({}).clear().lazy(), BotSettings()).kept.collect().schema == {
        "row": pl.UInt32,
        **SCHEMA,
    }
