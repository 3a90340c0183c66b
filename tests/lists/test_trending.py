"""Trending, on visits typed in."""

from datetime import date, timedelta

import polars as pl
import pytest

from recsys_ops.lists.trending import trending
from recsys_ops.settings import ListsSettings

DAY = date(2026, 3, 31)
SETTINGS = ListsSettings()


def visits(item: str, users: int, ages: range) -> pl.DataFrame:
    """Each of this many users views the item on each of the days of these ages."""
    return pl.DataFrame(
        [(DAY - timedelta(days=age), f"u{user}", item) for age in ages for user in range(users)],
        schema=["day", "user_id", "item_id"],
        orient="row",
    )


def listed(*events: pl.DataFrame, eligible: str = "kite sled cup") -> dict[str, float]:
    frame = trending(pl.concat(events), pl.Series(eligible.split()), DAY, SETTINGS)
    assert frame.schema == {"item_id": pl.String, "score": pl.Float32}
    return {item: round(score, 3) for item, score in frame.iter_rows()}


def test_items_with_more_users_than_before_are_listed_best_first() -> None:
    steady, risen = (
        visits("cup", 5, range(31)),
        pl.concat([visits("kite", 2, range(3, 31)), visits("kite", 8, range(3))]),
    )
    assert listed(steady, risen) == {"kite": round((24 - 6) / 7**0.5, 3)}
    new = visits("sled", 1, range(1))
    assert list(listed(steady, risen, new)) == ["kite", "sled"]
    assert listed(steady, new) == {"sled": 1.0}


def test_one_user_counts_once_a_day() -> None:
    steady, new = visits("cup", 1, range(31)), visits("kite", 1, range(2))
    assert listed(steady, new, new, new) == {"kite": 2.0}


def test_days_before_the_four_weeks_do_not_count() -> None:
    assert listed(
        visits("cup", 1, range(31)), visits("cup", 500, range(31, 60)), visits("kite", 1, range(1))
    ) == {"kite": 1.0}


def test_a_shorter_history_is_scaled_from_its_days() -> None:
    before = pl.concat(
        [visits("cup", 4, range(13)), visits("kite", 2, range(3, 13)), visits("kite", 6, range(3))]
    )
    assert listed(before) == {"kite": round((18 - 6) / 7**0.5, 3)}
    without_a_day = before.filter(pl.col("day") != DAY - timedelta(days=1))
    assert listed(without_a_day) == {"kite": round((12 - 4) / 5**0.5, 3)}


def test_without_earlier_or_recent_days_nothing_is_trending() -> None:
    assert listed(visits("kite", 9, range(3))) == {}
    assert listed(visits("kite", 9, range(3, 20))) == {}
    assert listed(visits("kite", 9, range(3)).clear()) == {}


def test_an_item_that_is_not_eligible_is_not_trending() -> None:
    assert (
        listed(visits("cup", 1, range(31)), visits("kite", 9, range(3)), eligible="cup sled") == {}
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_at_most_a_hundred_are_listed_and_equal_scores_by_id(
    seed: int,
) -> None:
    events = pl.concat(
        [visits("cup", 1, range(31)), *(visits(f"i{n:03d}", 1, range(1)) for n in range(150))]
    )
    names = pl.Series([f"i{n:03d}" for n in range(150)])
    frame = trending(events.sample(fraction=1, shuffle=True, seed=seed), names, DAY, SETTINGS)
    assert frame["item_id"].to_list() == names.head(100).to_list()
