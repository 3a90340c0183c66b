"""The day profile: the figures of a day and its window beside the usual ones."""

from collections.abc import Mapping
from datetime import date, timedelta

import polars as pl
import pytest

from recsys_ops.interactions.day_profile import (
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
) -> DayProfile:
    """The profile of a history with these numbers of rows at these ages, shared by two users."""
    rows = [
        (DAY - timedelta(days=age), f"u{n % 2}", f"i{n % 3}")
        for age, count in rows_by_age.items()
        for n in range(count)
    ]
    columns = {"day": pl.Date, "user_id": pl.String, "item_id": pl.String}
    events = pl.DataFrame(rows, schema=columns, orient="row")
    return profile_day(events, DAY, DAY - timedelta(days=window_days - 1), shares or {})


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
    }
    assert day.rows.value == 10


def test_missing_days_are_a_gap_beside_the_longest_usual_one():
    closed_on_sundays = {age: 10 for age in range(29) if age not in (6, 13, 20, 27)}
    assert profile(closed_on_sundays).gap == Figure(value=1, usual=2)
    last_days_missing = {age: 10 for age in range(29) if age not in (1, 2, 3)}
    assert profile(last_days_missing).gap == Figure(value=4, usual=1)


def test_a_day_without_events_has_zero_rows_and_no_ratio():
    day = profile(MONTH_OF_TENS)
    assert (day.rows.value, day.users.value, day.rows_per_user.value) == (0, 0, None)


def test_usual_shares_are_the_medians_of_the_runs_of_four_weeks():
    shares = {
        DAY - timedelta(days=age): {"quarantine_share": 0.01 * age, "bot_share": 0.2}
        for age in range(40)
    }
    day = profile({0: 10}, shares)
    assert day.bot_share == Figure(value=0.2, usual=0.2)
    assert day.quarantine_share.value == 0
    assert day.quarantine_share.usual == pytest.approx(0.145)
    six_before = {run: share for run, share in shares.items() if run > DAY - timedelta(days=7)}
    assert profile({0: 10}, six_before).bot_share.usual is None
