"""What the steps saw and rejected, by day: the shares of the day profile, and what is usual."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support.delivery import DAY, GOOD, SETTINGS, deliver

from recsys_ops.errors import DataError, StorageError
from recsys_ops.evaluation.gate import RULES
from recsys_ops.ingest.clean_day import run_step
from recsys_ops.ingest.day_counts import rejected_shares
from recsys_ops.ingest.steps import STEPS
from recsys_ops.interactions.day_profile import profile_day
from recsys_ops.settings import GateSettings, include_dir
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

YESTERDAY, TOMORROW = DAY - timedelta(days=1), DAY + timedelta(days=1)


def on(day: date, **columns: Any) -> dict[str, Any]:
    """A row that was recorded on a day."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return {"recorded_at": noon, "event_time": noon.isoformat()} | columns


def clean(storage: Storage, day: date = DAY) -> dict[str, dict[str, Any]]:
    return {name: run_step(storage, name, day, SETTINGS) for name in STEPS}


def test_rejected_rows_are_counted_against_all_delivered_rows(storage: Storage) -> None:
    deliver(
        storage,
        [
            *[{}] * 5,
            {"customer_ref": "u2"},
            {"quantity": "x"},
            {"user_agent": "Googlebot/2.1"},
            {"user_agent": "Googlebot/2.1", "action": "add_to_cart"},
            {"email": "boss@shop.example", "action": "purchase"},
            {"action": "purchase"},
            {"action": "Order "},
        ],
    )
    figures = clean(storage)
    shares = rejected_shares(storage, [YESTERDAY, DAY])
    assert list(shares) == [DAY]
    assert shares[DAY]["quarantine_share"] == pytest.approx(2 / 12)
    assert shares[DAY]["bot_share"] == pytest.approx(2 / 12)
    assert shares[DAY]["conversions_rejected_share"] == pytest.approx(2 / 4)
    assert "ignored_share" not in shares[DAY]
    conversions = {name: of_step["conversions_rejected"] for name, of_step in figures.items()}
    assert conversions == dict.fromkeys(STEPS, 0) | {"filter_crawlers": 1, "filter_staff": 1}


def test_rejected_conversions_are_counted_by_delivered_names(
    storage: Storage,
) -> None:
    lost = [{"action": "ORDER", "quantity": "x"}, {"action": "order", "customer_ref": "u2"}]
    deliver(storage, [{}, {}, {}, *lost])
    figures = clean(storage)
    assert [figures[name]["conversions_rejected"] for name in ("align_schema", "fix_types")] == [
        1,
        1,
    ]


def test_objects_of_a_list_count_each_and_no_share_exceeds_one(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (include_dir() / "contract.yaml").read_text()
    listed = text.replace("aliases: [product_id, sku]}", 'aliases: ["items[].sku"]}')
    listed = listed.replace("max: 10000, default: 1}", 'max: 10000, aliases: ["items[].n"]}')
    (tmp_path / "contract.yaml").write_text(listed + "  ignore: [scroll]\n")
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    objects = [f'{{"sku": "p{number}", "n": 1}}' for number in range(10)]
    broken = '{"sku": "p10", "n": "x"}'
    contents = [
        {"items": f"[{', '.join([*objects, broken])}]"},
        {"items": f"[{', '.join(objects)}]", "action": "scroll"},
        {"items": "[1]"},
    ]
    deliver(storage, contents, without=("product_id", "quantity"))
    figures = clean(storage)
    assert figures["align_schema"]["exploded"] == 19
    assert figures["align_schema"]["reasons"] == {"not_a_value": 1}
    assert figures["fix_types"]["reasons"] == {"not_an_integer": 1}
    assert (figures["fix_types"]["kept"], figures["fix_types"]["ignored"]) == (10, {"scroll": 10})
    shares = rejected_shares(storage, [DAY])[DAY]
    assert shares["ignored_share"] == pytest.approx(10 / 22)
    assert shares["quarantine_share"] == pytest.approx(2 / 22)


def test_rows_without_a_value_are_counted_by_column(storage: Storage) -> None:
    agents = [None, "-", '"-"', " ", GOOD["user_agent"]]
    deliver(storage, [{"user_agent": agent} for agent in agents] + [{"user_id": None}])
    clean(storage)
    shares = rejected_shares(storage, [DAY])[DAY]
    nulls = {
        name.removeprefix("nulls."): share for name, share in shares.items() if "nulls." in name
    }
    assert nulls["user_agent"] == pytest.approx(4 / 6)
    assert nulls["user_id"] == pytest.approx(1 / 6)
    assert (nulls["ip"], nulls["item_id"]) == (1, 0)


def test_each_day_of_a_first_load_counts_for_itself(storage: Storage) -> None:
    days = [DAY - timedelta(days=age) for age in range(40)]
    rows = [on(day, user_agent=agent) for day in days for agent in ("Firefox", "Googlebot/2.1")]
    old_cart = on(days[-1], user_agent="Googlebot/2.1", action="cart")
    deliver(storage, [*rows, on(DAY), on(DAY), old_cart])
    assert clean(storage)["filter_crawlers"]["conversions_rejected"] == 1
    shares = rejected_shares(storage, sorted(days))
    assert sorted(shares) == sorted(days)[-29:]
    assert {share["bot_share"] for day, share in shares.items() if day != DAY} == {0.5}
    assert shares[DAY]["bot_share"] == 0.25


def test_the_night_after_a_first_load_is_compared_with_its_days(storage: Storage) -> None:
    days = [DAY - timedelta(days=age) for age in range(40)]
    deliver(storage, [on(day) for day in days for _ in range(4)])
    clean(storage)
    lost = {"user_agent": None}
    deliver(
        storage, [on(TOMORROW, **lost)] * 2 + [on(TOMORROW, user_id=None, **lost)] * 2, TOMORROW
    )
    clean(storage, TOMORROW)
    asked = [TOMORROW - timedelta(days=age) for age in range(29)]
    no_events = pl.DataFrame(
        schema=dict.fromkeys(("user_id", "item_id"), pl.String) | {"day": pl.Date}
    )
    profile = profile_day(no_events, TOMORROW, days[-1], rejected_shares(storage, asked))
    metrics = {"data": profile.model_dump()}
    results = {
        name: RULES[name](name, metrics, GateSettings()) for name in ("nulls", "quarantine_share")
    }
    assert [result.passed for result in results.values()] == [False, False]
    assert results["nulls"].sentence.startswith(
        "100.0% of the rows have no user_agent, usual are 0.0%"
    )


def test_a_day_is_taken_from_its_own_run_before_a_later_one(storage: Storage) -> None:
    deliver(storage, [on(YESTERDAY), on(DAY), on(DAY, user_agent="Googlebot/2.1")], DAY)
    clean(storage, DAY)
    deliver(storage, [on(DAY), on(TOMORROW)], TOMORROW)
    clean(storage, TOMORROW)
    shares = rejected_shares(storage, [YESTERDAY, DAY, TOMORROW])
    assert [shares[day]["bot_share"] for day in (YESTERDAY, DAY, TOMORROW)] == [0, 0.5, 0]


def test_an_incomplete_run_says_nothing(storage: Storage) -> None:
    deliver(storage, [{}])
    clean(storage)
    run_step(storage, "fix_types", DAY, SETTINGS)
    assert rejected_shares(storage, [DAY]) == {}


@pytest.mark.parametrize("content", [b"[]", b"no JSON"])
def test_damaged_counts_are_left_out_unless_they_are_the_days_own(
    storage: Storage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for day in (YESTERDAY, DAY):
        deliver(storage, [on(day)], day)
        clean(storage, day)
    damaged = paths.day_counts("fix_types", YESTERDAY)
    storage.put(damaged, content)
    assert list(rejected_shares(storage, [DAY, YESTERDAY])) == [DAY]
    assert damaged in caplog.text
    with pytest.raises(StorageError, match="fix_types_by_day"):
        rejected_shares(storage, [YESTERDAY])


def test_a_row_without_a_readable_time_counts_to_the_day_of_the_run(storage: Storage) -> None:
    times = ["2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "yesterday", None]
    deliver(storage, [{"recorded_at": time} for time in times])
    run_step(storage, "align_schema", DAY, SETTINGS)
    written = storage.read_json(paths.day_counts("align_schema", DAY))
    assert {day: counts["rows"] for day, counts in written.items()} == {
        "2026-03-01": 1,
        "2026-03-02": 3,
    }


@pytest.mark.parametrize("column", ["user_agent", "email"])
def test_a_filters_column_that_vanishes_refuses_the_day(storage: Storage, column: str) -> None:
    deliver(storage, [on(DAY), on(DAY)])
    clean(storage, DAY)
    deliver(storage, [on(TOMORROW)], TOMORROW, without=(column,))
    for _ in range(2):
        with pytest.raises(DataError, match=f"lacks {column}, which the days before had"):
            run_step(storage, "align_schema", TOMORROW, SETTINGS)


def test_a_column_that_is_gone_for_good_or_never_came_is_no_error(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(storage, [on(DAY), on(DAY)])
    assert "ip" not in GOOD
    clean(storage, DAY)
    text = (include_dir() / "contract.yaml").read_text()
    plain = "user_agent: {type: text, required: false"
    assert plain in text
    (tmp_path / "contract.yaml").write_text(text.replace(plain, f"{plain}, gone: true"))
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    deliver(storage, [on(TOMORROW)], TOMORROW, without=("user_agent",))
    assert run_step(storage, "align_schema", TOMORROW, SETTINGS)["kept"] == 1
