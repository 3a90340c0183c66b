"""What the gate's data guards are told of a day and its window."""

from datetime import date, timedelta

import polars as pl
import pytest

from recsys_ops.interactions.day_profile import profile_day, rejected_shares

DAY = date(2026, 3, 10)


def events(rows_by_age: dict[int, int], users: int = 2) -> pl.DataFrame:
    """So many rows on the day so many days before `DAY`, each user with the same number of them."""
    rows = [
        (DAY - timedelta(days=age), f"u{n % users}", f"i{n % 3}")
        for age, count in rows_by_age.items()
        for n in range(count)
    ]
    return pl.DataFrame(
        rows, schema={"day": pl.Date, "user_id": pl.String, "item_id": pl.String}, orient="row"
    )


def facts(found: pl.DataFrame, window_days: int = 60, shares: dict | None = None):
    return profile_day(found, DAY, DAY - timedelta(days=window_days - 1), shares or {})


def test_a_day_is_told_beside_the_median_of_the_four_weeks_before():
    found = facts(events(dict.fromkeys(range(1, 29), 10) | {0: 40, 5: 1000, 40: 9_000}))
    assert (found.rows, found.usual_rows, found.users, found.usual_users) == (40, 10, 2, 2)
    assert (found.rows_per_user, found.usual_rows_per_user) == (20, 5)
    assert (found.repeats, found.usual_repeats) == (pytest.approx(40 / 6), pytest.approx(10 / 6))
    assert (found.spread_repeats, found.spread_rows_per_user) == (
        pytest.approx(100),
        pytest.approx(100),
    )
    assert (found.gap, found.usual_gap, found.window_rows, found.window_days) == (
        1,
        1,
        28 * 10 + 990 + 40 + 9_000,
        60,
    )


def test_less_than_a_week_says_nothing_of_what_is_usual():
    found = facts(events(dict.fromkeys(range(7), 10)))
    assert found.rows == 10
    assert {name for name, value in found if value is None} == {
        *(
            f"usual_{name}"
            for name in (
                "rows",
                "users",
                "items",
                "rows_per_user",
                "repeats",
                "quarantine_share",
                "bot_share",
                "gap",
            )
        ),
        *("spread_rows_per_user", "spread_repeats"),
        "gap",
        "quarantine_share",
        "bot_share",
    }


def test_missing_days_are_a_gap_beside_the_longest_usual_one():
    closed_on_sundays = {age: 10 for age in range(29) if age not in (6, 13, 20, 27)}
    assert (facts(events(closed_on_sundays)).gap, facts(events(closed_on_sundays)).usual_gap) == (
        1,
        2,
    )
    stale = {age: 10 for age in range(29) if age not in (1, 2, 3)}
    assert (facts(events(stale)).gap, facts(events(stale)).usual_gap) == (4, 1)


def test_a_day_without_events_has_none():
    found = facts(events(dict.fromkeys(range(1, 29), 10)))
    assert (found.rows, found.users, found.rows_per_user) == (0, 0, None)


def test_the_shares_are_those_of_the_runs_of_the_four_weeks_before():
    shares = {
        DAY - timedelta(days=age): {"quarantine_share": 0.01 * age, "bot_share": 0.2}
        for age in range(40)
    }
    found = facts(events({0: 10}), shares=shares)
    assert (found.quarantine_share, found.bot_share, found.usual_bot_share) == (0, 0.2, 0.2)
    assert found.usual_quarantine_share == pytest.approx(0.145)
    few = {day: share for day, share in shares.items() if day > DAY - timedelta(days=7)}
    assert facts(events({0: 10}), shares=few).usual_bot_share is None


def test_rejected_rows_count_against_all_that_were_delivered():
    steps = {
        "align_schema": (200, 10),
        "fix_types": (190, 10),
        "filter_crawlers": (170, 30),
        "filter_bots": (140, 10),
    }
    found = rejected_shares(
        {step: {"rows_in": rows, "rejected": rejected} for step, (rows, rejected) in steps.items()}
    )
    assert found == {"quarantine_share": pytest.approx(0.1), "bot_share": pytest.approx(0.2)}
    assert rejected_shares({step: {"rows_in": 0, "rejected": 0} for step in steps}) is None
