"""Slow bots and shared ids, which show only over weeks."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from recsys_ops.cleaning.slow_bots import find_slow_bots
from recsys_ops.settings import SlowBotSettings

FIRST = date(2026, 3, 1)
SETTINGS = SlowBotSettings()


def history(
    user: str, counts: list[int], *, items: int = 400, event_type: str = "view"
) -> pl.DataFrame:
    """A user with these numbers of events on consecutive days, item after item."""
    days = [FIRST + timedelta(days=n) for n, count in enumerate(counts) for _ in range(count)]
    item = [f"p{n % items}" for n in range(len(days))]
    return pl.DataFrame({"day": days, "user_id": user, "item_id": item, "event_type": event_type})


def left_out(*users: pl.DataFrame) -> list[tuple[str, str, str]]:
    return find_slow_bots(pl.concat(users), SETTINGS).select("user_id", "reason", "value").rows()


STEADY = [40] * 28
WEEKLY = [5, 0, 60, 8, 0, 90, 40] * 6
PEOPLE = pl.concat([history(f"u{n}", [250] * 8) for n in range(60)])


@pytest.mark.parametrize(
    ("robot", "signs"),
    [
        (history("r", STEADY), "every_day steady"),
        (history("r", [0, *STEADY]), "every_day steady"),
        (history("r", [100, 300] * 13, items=9000), "breadth every_day"),
        (history("r", [300, 0] * 20, items=9000), "breadth steady"),
    ],
    ids=["a little every day", "from the second day", "all over the shop", "every other day"],
)
def test_robot_below_every_daily_limit_is_left_out_of_the_model(
    robot: pl.DataFrame, signs: str
) -> None:
    assert left_out(PEOPLE, robot) == [("r", "slow_bot", signs)]


@pytest.mark.parametrize("event_type", ["cart", "checkout", "purchase"])
def test_user_with_a_conversion_is_no_slow_bot(event_type: str) -> None:
    robot = history("r", STEADY)
    once = history("r", [1], event_type=event_type)
    assert left_out(PEOPLE, robot, once) == []


@pytest.mark.parametrize(
    "counts",
    [[40] * 13, [30] * 16, WEEKLY, [3, 1] * 100],
    ids=["two weeks", "few events", "now and then", "every day, unevenly"],
)
def test_window_shopper_stays_in_the_model(counts: list[int]) -> None:
    assert left_out(PEOPLE, history("shopper", counts)) == []


def test_id_with_too_large_a_share_of_the_window_is_left_out() -> None:
    shared = history("0", [500] * 14, event_type="purchase")
    assert left_out(PEOPLE, shared) == [("0", "pseudo_user", "5.5 % of the window's events")]


def test_customer_with_a_large_share_of_few_days_stays_in_the_model() -> None:
    assert left_out(PEOPLE, history("wholesaler", [450, 0] * 13, event_type="purchase")) == []


def test_in_a_shop_with_few_customers_nobody_is_a_pseudo_user() -> None:
    assert (
        left_out(*(history(f"u{n}", [50, 20] * 10, event_type="purchase") for n in range(10))) == []
    )


def test_order_of_the_rows_does_not_matter() -> None:
    events = pl.concat([PEOPLE, history("r", STEADY), history("s", WEEKLY)])
    shuffled = events[np.random.default_rng(1).permutation(len(events))]
    assert find_slow_bots(shuffled, SETTINGS).equals(find_slow_bots(events, SETTINGS))


def test_without_events_nobody_is_left_out() -> None:
    assert find_slow_bots(PEOPLE.clear(), SETTINGS).is_empty()


def test_ids_may_be_encoded() -> None:
    events = pl.concat([PEOPLE, history("r", STEADY), history("0", [700] * 14)])
    codes = events.with_columns(
        pl.col(name).cast(pl.Enum(events[name].unique().sort())) for name in ("user_id", "item_id")
    )
    rejected = find_slow_bots(codes, SETTINGS)
    assert rejected["user_id"].to_list() == ["0", "r"]
    assert rejected.equals(find_slow_bots(events, SETTINGS))
