"""Which losses of rows are plausible."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ops.errors import DataError
from recsys_ops.ingest.plausibility import accepted, lost_rows, unusually_empty

DAY = date(2026, 3, 2)  # a Monday


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.floats(0, 1))
def test_a_day_with_rows_never_becomes_empty_or_too_small(
    before: int, after: int, share: float
) -> None:
    refused = lost_rows({DAY: after}, {DAY: before}, share)
    assert bool(refused) == (after == 0 or after < share * before)


def test_a_day_is_compared_only_with_itself() -> None:
    before = {DAY - timedelta(days=1): 100, DAY: 0}
    assert lost_rows({DAY: 0, DAY + timedelta(days=1): 0}, before, 0.9) == []


def weeks(count: int, rows: int = 70, *, sundays: int) -> dict[date, int]:
    days = [DAY - timedelta(days=ago) for ago in range(1, 7 * count + 1)]
    return {day: sundays if day.weekday() == 6 else rows for day in days}


def test_an_empty_day_is_unusual_where_its_weekday_has_rows() -> None:
    history = weeks(4, sundays=0)
    monday, sunday = DAY, DAY + timedelta(days=6)
    assert unusually_empty({monday: 0}, history) == [f"{monday} has no rows, usually about 70"]
    # the week before was read, and its days have no rows of their own in what was read just now
    assert unusually_empty({sunday: 0}, history | {monday: 70}) == []
    assert unusually_empty({sunday: 0}, weeks(4, sundays=30)) == [
        f"{sunday} has no rows, usually about 30"
    ]


def test_a_shop_may_be_closed_on_days_before_others_with_rows() -> None:
    days = [DAY + timedelta(days=n) for n in range(10)]
    rows = dict(zip(days, (0, 0, 50, 60, 0, 55, 50, 50, 60, 40), strict=True))
    assert unusually_empty(rows, {}) == []
    assert unusually_empty({days[4]: 0}, {**rows, days[4]: 0}) == []
    closed = {days[8]: 0, days[9]: 0}
    assert unusually_empty(rows | closed, {}) == [
        f"{days[8]} has no rows, usually about 50",
        f"{days[9]} has no rows, usually about 50",
    ]
    # the shop is open again: the days on which it was closed hold nothing up
    assert unusually_empty(closed | {days[9] + timedelta(days=1): 50}, rows) == []


def test_a_first_load_and_a_load_of_a_week_find_a_row() -> None:
    assert unusually_empty({DAY: 0}, {}) == ["no rows were found, days read: 1"]
    week = {DAY + timedelta(days=n): 0 for n in range(7)}
    later = {DAY + timedelta(days=30): 50}
    assert unusually_empty(week, later) == ["no rows were found, days read: 7"]
    assert unusually_empty({DAY: 0}, later) == []
    assert unusually_empty({**week, DAY: 5}, later) == []


def test_a_day_that_was_read_before_is_not_judged_as_new() -> None:
    assert unusually_empty({DAY: 0}, {**weeks(4, sundays=70), DAY: 0}) == []


def test_a_reason_is_only_recorded_where_it_was_needed() -> None:
    assert accepted([], "cleared out") is None
    assert accepted(["2026-03-02 would have 0 of its 5 rows"], "cleared out") == "cleared out"
    with pytest.raises(DataError, match=r"d4; and 2 more\.") as error:
        accepted([f"d{n}" for n in range(7)], None)
    assert "accept_reason" in str(error.value)
