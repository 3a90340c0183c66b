"""The rule that gives every run its day."""

from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from recsys_ops.errors import SettingsError
from recsys_ops.run_day import check_day_is_over, format_days, read_day, requested_lookback, run_day

NOW = datetime(2026, 3, 1, 2, 0, 5, tzinfo=UTC)


def run(
    logical_date: datetime | None = None, run_type: str = "manual", run_id: str = "manual__x"
) -> SimpleNamespace:
    return SimpleNamespace(
        logical_date=logical_date, run_after=NOW, run_type=run_type, run_id=run_id
    )


@pytest.mark.parametrize(
    "dag_run",
    [
        run(datetime(2026, 3, 1, 2, tzinfo=UTC), "scheduled"),
        run(datetime(2026, 3, 1, 2, tzinfo=UTC), "backfill"),
        run(NOW, "manual"),
        run(None, "asset_triggered"),
        run(datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=-1)))),
    ],
    ids=["scheduled", "backfill", "UI", "without a date", "another zone"],
)
def test_every_run_works_on_the_last_complete_utc_day(dag_run: SimpleNamespace) -> None:
    assert run_day(dag_run, {}) == date(2026, 2, 28)


def test_the_trigger_form_can_set_another_day() -> None:
    assert run_day(run(), {"day": "2025-12-31"}) == date(2025, 12, 31)


def test_a_day_that_is_not_over_is_refused() -> None:
    with pytest.raises(SettingsError, match="2026-03-01 is not over yet"):
        check_day_is_over(date(2026, 3, 1), run())
    check_day_is_over(date(2026, 2, 28), run())


@pytest.mark.parametrize("text", ["0001-01-01", "1999-12-31", "9999-12-31", "2026-02-30", "now"])
def test_what_is_no_plausible_day_is_refused(text: str) -> None:
    for read in (lambda: read_day(text), lambda: run_day(run(), {"day": text})):
        with pytest.raises(SettingsError, match=rf"{text}.* is no (plausible )?day: "):
            read()


def test_a_run_of_the_first_day_of_the_calendar_is_refused() -> None:
    with pytest.raises(SettingsError, match="no run can be for 0001-01-01"):
        run_day(run(datetime(1, 1, 1, tzinfo=UTC)), {})


def test_the_form_sets_the_lookback_and_a_backfill_has_none() -> None:
    assert requested_lookback(run(), {"lookback_days": None}) is None
    assert requested_lookback(run(), {"lookback_days": 0}) == 0
    assert requested_lookback(run(run_type="backfill"), {}) == 0
    assert requested_lookback(run(run_type="backfill"), {"lookback_days": 30}) == 30


def test_adjoining_days_are_shown_as_a_range() -> None:
    days = [date(2026, 2, day) for day in (1, 3, 4, 5, 27, 28)]
    assert format_days(days) == "2026-02-01, 2026-02-03 … 2026-02-05, 2026-02-27 … 2026-02-28"
    assert format_days([]) == ""
