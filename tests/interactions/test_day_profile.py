"""The day profile: the figures of a day and its window beside the usual ones."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from recsys_ops.interactions.day_profile import (
    CatalogueProfile,
    DayProfile,
    Figure,
    profile_day,
)

DAY = date(2026, 3, 10)
MONTH_OF_TENS = dict.fromkeys(range(1, 29), 10)


def profile(
    rows_by_age: dict[int, int],
    shares: Mapping[date, Mapping[str, float]] | None = None,
    window_days: int = 60,
    **more: Any,
) -> DayProfile:
    """The profile of a history with these numbers of rows at these ages, shared by two users."""
    rows = [
        (DAY - timedelta(days=age), f"u{n % 2}", f"i{n % 3}")
        for age, count in rows_by_age.items()
        for n in range(count)
    ]
    columns = {"day": pl.Date, "user_id": pl.String, "item_id": pl.String}
    events = pl.DataFrame(rows, schema=columns, orient="row")
    return profile_day(events, DAY, DAY - timedelta(days=window_days - 1), shares or {}, **more)


def test_a_day_is_beside_the_median_of_the_four_weeks_before():
    day = profile(MONTH_OF_TENS | {0: 40, 5: 1000, 40: 9_000})
    assert (day.rows, day.users) == (Figure(value=40, usual=10), Figure(value=2, usual=2))
    assert day.items == Figure(value=3, usual=3)
    assert (day.rows_per_user.value, day.rows_per_user.usual) == (20, 5)
    assert day.rows_per_user.spread == pytest.approx(100)
    assert (day.repeats.value, day.repeats.usual) == (
        pytest.approx(40 / 6),
        pytest.approx(10 / 6),
    )
    assert day.repeats.spread == pytest.approx(100)
    assert day.gap == Figure(value=1, usual=1)
    assert (day.window_rows, day.window_days) == (28 * 10 + 990 + 40 + 9_000, 60)


def test_with_less_than_a_week_before_nothing_is_usual():
    day = profile(dict.fromkeys(range(7), 10))
    figures = {name: figure for name, figure in day if isinstance(figure, Figure)}
    assert {(figure.usual, figure.spread) for figure in figures.values()} == {(None, None)}
    assert {name for name, figure in figures.items() if figure.value is None} == {
        "gap",
        "quarantine_share",
        "bot_share",
        "ignored_share",
        "conversions_rejected_share",
        "eligible",
        "unmanaged_share",
        "known_share",
    }
    assert day.rows.value == 10


def test_missing_days_are_a_gap_beside_the_longest_usual_one():
    closed_on_sundays = {age: 10 for age in range(29) if age not in (6, 13, 20, 27)}
    assert profile(closed_on_sundays).gap == Figure(value=1, usual=2)
    last_days_missing = {age: 10 for age in range(29) if age not in (1, 2, 3)}
    assert profile(last_days_missing).gap == Figure(value=4, usual=1)


def with_closed_days(*closed: int, read: bool = True) -> DayProfile:
    """Eight weeks without the days of these ages, which runs have read or not."""
    all_days = {DAY - timedelta(days=age) for age in range(57)}
    missing = {DAY - timedelta(days=age) for age in closed}
    rows = {age: 10 for age in range(57) if age not in closed}
    return profile(rows, read_days=all_days if read else all_days - missing)


def days_ago(*ages: int) -> tuple[date, ...]:
    return tuple(DAY - timedelta(days=age) for age in sorted(ages, reverse=True))


def test_a_gap_that_was_there_once_is_not_usual_the_next_time():
    assert with_closed_days(10, 11, 12).gap == Figure(value=1, usual=1)
    assert with_closed_days(1, 2, 3, 10, 11, 12).gap == Figure(value=4, usual=1)


def test_days_that_no_run_has_read_are_named_wherever_the_gap_is():
    for gap in ((1, 2, 3), (2, 3, 4), (12, 13, 14, 15, 16, 17), (28,)):
        assert with_closed_days(*gap, read=False).unread_days == days_ago(*gap)
        assert with_closed_days(*gap).unread_days == ()
    assert with_closed_days(28, 29, 30, read=False).unread_days == days_ago(28)
    assert with_closed_days(29, 30, 31, read=False).unread_days == ()
    both = with_closed_days(1, 2, 3, 20, 21, 22, read=False)
    assert both.unread_days == days_ago(1, 2, 3, 20, 21, 22)


def test_days_on_which_the_shop_is_always_closed_need_not_be_read():
    sundays = tuple(range(6, 57, 7))
    assert with_closed_days(*sundays, read=False).unread_days == ()
    and_a_week = with_closed_days(*sundays, 7, 8, 9, read=False)
    assert and_a_week.unread_days == days_ago(6, 7, 8, 9)


def test_a_new_shop_may_begin_with_single_days():
    assert profile(dict.fromkeys((0, 2, 5, 9, 12), 10), read_days=()).unread_days == ()


def catalogue(*items: str) -> CatalogueProfile:
    return CatalogueProfile(pl.Series(items, dtype=pl.String), 40, 0.1, known_items=2)


def test_the_catalogue_is_beside_that_of_the_days_before():
    before = {
        DAY - timedelta(days=age): {"eligible": 100 + age, "known_share": 0.9}
        for age in range(1, 40)
    }
    day = profile(MONTH_OF_TENS | {0: 10, 5: 100}, before, catalogue=catalogue("i0", "i1", "x"))
    assert day.eligible == Figure(value=40, usual=114.5, spread=13.5)
    assert day.unmanaged_share == Figure(value=0.1, usual=None)
    assert day.known_share == Figure(value=0.7, usual=0.9, spread=0)
    assert day.window_known_share == pytest.approx((28 * 7 + 67) / 380)
    assert day.known_items == 2


def test_no_item_in_common_with_the_catalogue_is_a_share_of_zero():
    day = profile(MONTH_OF_TENS | {0: 10}, catalogue=catalogue("i0.0", "i1.0"))
    assert (day.known_share.value, day.window_known_share) == (0, 0)


def test_a_profile_of_an_older_release_is_read_without_the_new_figures():
    old = profile(MONTH_OF_TENS | {0: 10}).model_dump(mode="json")
    for name in ("eligible", "unmanaged_share", "known_share", "window_known_share"):
        del old[name]
    del old["known_items"], old["unread_days"]
    assert DayProfile.model_validate(old).eligible == Figure(value=None, usual=None)


def test_a_day_without_events_has_zero_rows_and_no_ratio():
    day = profile(MONTH_OF_TENS)
    assert (day.rows.value, day.users.value, day.rows_per_user.value) == (0, 0, None)


def test_usual_shares_are_the_medians_of_the_runs_of_four_weeks():
    shares = {
        DAY - timedelta(days=age): {"quarantine_share": 0.01 * age, "bot_share": 0.2}
        for age in range(40)
    }
    day = profile({0: 10}, shares)
    assert day.bot_share == Figure(value=0.2, usual=0.2, spread=0)
    assert day.quarantine_share.value == 0
    assert day.quarantine_share.usual == pytest.approx(0.145)
    assert day.quarantine_share.spread == pytest.approx(0.135)
    shares[DAY - timedelta(days=9)]["bot_share"] = 0.9
    assert profile({0: 10}, shares).bot_share.spread == 0  # one odd day makes nothing usual
    shares[DAY - timedelta(days=10)]["bot_share"] = 0.5
    assert profile({0: 10}, shares).bot_share.spread == pytest.approx(0.3)
    six_before = {run: share for run, share in shares.items() if run > DAY - timedelta(days=7)}
    assert profile({0: 10}, six_before).bot_share.usual is None
