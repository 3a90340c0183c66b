"""Strict values: an accepted value is exact, every other row is rejected unchanged."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cleaning_rows import CONTRACT_FILE, RECORDED, aligned, fix, fixed, verdicts

from recsys_ops.cleaning import Contract, load_contract
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.cleaning.parsing import EPOCHS
from recsys_ops.errors import ContractError

NUMBERED = {"row": pl.UInt32(), **SCHEMA}
CONTRACT = load_contract(CONTRACT_FILE)
HAND_WRITTEN = st.text("0123456789+-._eExX ,:TZnaif\u0663\u200b\x00", max_size=24)
few = settings(max_examples=60)


def test_good_row_becomes_a_canonical_event(contract: Contract) -> None:
    frame = aligned({"event_type": " Add_To_Cart ", "quantity": "", "value": None, "ip": " "})
    cleaned = fix(frame, contract)
    assert cleaned.kept.schema == NUMBERED
    row = cleaned.kept.row(0, named=True)
    assert row["event_time"] == datetime(2026, 3, 2, 11, 59, 58, tzinfo=UTC)
    assert (row["event_type"], row["quantity"], row["value"], row["ip"]) == ("cart", 1, None, None)


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("quantity", "12.5", "not_an_integer"),
        ("quantity", "0x10", "not_an_integer"),
        ("quantity", "1_000", "not_an_integer"),
        ("quantity", "1e3", "not_an_integer"),
        ("quantity", "٣", "not_an_integer"),
        ("quantity", "0", "out_of_bounds"),
        ("quantity", "99999999999999999999", "out_of_bounds"),
        ("value", "nan", "not_a_decimal"),
        ("value", "inf", "not_a_decimal"),
        ("value", "19,90", "not_a_decimal"),
        ("value", "-0.01", "out_of_bounds"),
        ("value", "9" * 400, "out_of_bounds"),
        ("event_time", "2026-02-30T10:00:00Z", "not_a_time"),
        ("event_time", "20260102", "not_a_time"),
        ("event_time", "2026-03-01", "not_a_time"),
        ("event_time", "2026-03-01T23:59:60Z", "not_a_time"),
        ("event_time", "01.03.2026 10:00:00", "not_a_time"),
        ("event_time", "2026-03-02 10:00:00", "naive_time"),
        ("event_time", "1970-01-01T00:00:00Z", "out_of_bounds"),
        ("event_time", "2026-03-02T13:00:01Z", "future"),
        ("event_time", "", "missing"),
        ("user_id", "", "missing"),
        ("user_id", " \t", "missing"),
        ("user_id", "NaN", "nobody"),
        ("user_id", "None", "nobody"),
        ("user_id", " null ", "nobody"),
        ("user_id", "Guest", "nobody"),
        ("user_id", "{{user_id}}", "nobody"),
        ("item_id", "(not set)", "bad_id"),
        ("user_id", "\u3164", "bad_id"),
        ("user_id", "u\x001", "bad_id"),
        ("user_id", "u\u200b1", "bad_id"),
        ("user_id", "u" * 201, "bad_id"),
        ("event_type", "teleport", "unknown_event"),
    ],
)
def test_dirty_value_is_rejected_with_column_reason_and_text(
    contract: Contract, column: str, text: str, reason: str
) -> None:
    cleaned = fixed(column, [text], contract)
    assert verdicts(cleaned) == [(reason, column, text)]


def test_id_above_the_exact_doubles_keeps_every_digit(contract: Contract) -> None:
    assert fixed("user_id", ["9007199254740993"], contract).kept["user_id"].to_list() == [
        "9007199254740993"
    ]
    assert fixed("user_id", pl.Series([9007199254740993]), contract).kept["user_id"].to_list() == [
        "9007199254740993"
    ]


def test_whole_quantity_above_the_exact_doubles_is_no_other_number(
    changed: Callable[..., Contract],
) -> None:
    contract = changed(quantity={"max": 2**53})
    cleaned = fixed("quantity", ["9007199254740992", "9007199254740993"], contract)
    assert cleaned.kept["quantity"].to_list() == [2**53]
    assert verdicts(cleaned) == [("out_of_bounds", "quantity", "9007199254740993")]


@few
@given(st.lists(st.one_of(st.integers(-5, 10**5).map(str), HAND_WRITTEN), min_size=1, max_size=12))
def test_accepted_integers_read_back_as_written(texts: list[str]) -> None:
    cleaned = fixed("quantity", texts, CONTRACT)
    rows = dict(cleaned.kept.select("event_id", "quantity").rows())
    written = [(text.strip(), rows[f"e{i}"]) for i, text in enumerate(texts) if f"e{i}" in rows]
    assert all(f"{value:.0f}" == (text or "1") for text, value in written)
    assert [v for *_, v in verdicts(cleaned)] == [
        text for i, text in enumerate(texts) if f"e{i}" not in rows
    ]
    accepted = {text for text, _ in written}
    assert all(
        text in accepted for text in (t.strip() for t in texts) if text in map(str, range(1, 10001))
    )


@few
@given(
    st.lists(
        st.one_of(st.decimals(-1, 10**6, places=4).map(str), HAND_WRITTEN), min_size=1, max_size=12
    )
)
def test_accepted_decimals_read_back_as_written(texts: list[str]) -> None:
    cleaned = fixed("value", texts, CONTRACT)
    rows = dict(cleaned.kept.select("event_id", "value").rows())
    for i, text in enumerate(texts):
        if f"e{i}" in rows and text.strip():
            assert rows[f"e{i}"] == float(text)
            assert len(text.strip()) > 15 or Decimal(repr(rows[f"e{i}"])) == Decimal(text.strip())
    assert [v for *_, v in verdicts(cleaned)] == [
        text for i, text in enumerate(texts) if f"e{i}" not in rows
    ]


@few
@given(
    st.lists(
        st.datetimes(
            datetime(2000, 1, 2),  # noqa: DTZ001
            datetime(2026, 3, 1),  # noqa: DTZ001
            timezones=st.integers(-840, 840).map(lambda m: timezone(timedelta(minutes=m))),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_zoned_times_become_the_same_instant_in_utc(times: list[datetime]) -> None:
    cleaned = fixed("event_time", [time.isoformat() for time in times], CONTRACT)
    assert cleaned.kept["event_time"].to_list() == [time.astimezone(UTC) for time in times]


@few
@given(
    st.lists(st.integers(946_684_800_000_000, 1_772_000_000_000_000), min_size=1, max_size=12),
    st.sampled_from(list(EPOCHS)),
)
def test_numbers_since_1970_become_exact_times(micros: list[int], unit: str) -> None:
    scale = 1_000_000 // EPOCHS[unit]
    rule = CONTRACT.columns["event_time"].model_copy(update={"formats": (unit,)})
    declared = CONTRACT.model_copy(update={"columns": CONTRACT.columns | {"event_time": rule}})
    cleaned = fixed("event_time", [str(number // scale) for number in micros], declared)
    assert [number // scale for number in cleaned.kept["event_time"].dt.timestamp("us")] == [
        number // scale for number in micros
    ]


@few
@given(st.lists(st.datetimes(datetime(2000, 1, 2), datetime(2026, 3, 2)), min_size=1, max_size=12))  # noqa: DTZ001
def test_naive_times_are_read_in_the_declared_zone(times: list[datetime]) -> None:
    rule = CONTRACT.columns["event_time"].model_copy(update={"timezone": "Europe/Berlin"})
    declared = CONTRACT.model_copy(update={"columns": CONTRACT.columns | {"event_time": rule}})
    cleaned = fixed("event_time", [time.isoformat() for time in times], declared)
    instants = [time.replace(tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC) for time in times]
    shown = [i.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None) for i in instants]
    assert cleaned.kept["event_time"].to_list() == [
        i for i, time, back in zip(instants, times, shown, strict=True) if time == back
    ]


@few
@given(st.lists(HAND_WRITTEN, min_size=1, max_size=12))
def test_no_other_text_becomes_a_time(texts: list[str]) -> None:
    cleaned = fixed("event_time", texts, CONTRACT)
    kept = set(cleaned.kept["event_id"])
    # nine digits and more may be seconds since 1970
    assert all(
        text.strip().isdigit() and len(text.strip()) >= 9
        for i, text in enumerate(texts)
        if f"e{i}" in kept
    )
    assert {column for _, column, _ in verdicts(cleaned)} <= {"event_time"}


@few
@given(st.lists(st.text(max_size=12), min_size=1, max_size=12))
def test_accepted_ids_are_the_trimmed_text(texts: list[str]) -> None:
    cleaned = fixed("user_id", texts, CONTRACT)
    rows = dict(cleaned.kept.select("event_id", "user_id").rows())
    accepted = [(text, rows[f"e{i}"]) for i, text in enumerate(texts) if f"e{i}" in rows]
    assert all(value in text and value == value.strip() and value for text, value in accepted)
    assert [v for *_, v in verdicts(cleaned)] == [
        text for i, text in enumerate(texts) if f"e{i}" not in rows
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1772445600",
        "1772445600000",
        "2026-03-02T10:00:00.000Z",
        "2026-03-02 12:00:00+02",
        "2026-03-02T04:30:00-0530",
    ],
)
def test_one_instant_in_every_declared_spelling(contract: Contract, text: str) -> None:
    assert fixed("event_time", [text], contract).kept["event_time"].to_list() == [
        datetime(2026, 3, 2, 10, tzinfo=UTC)
    ]


def test_epoch_of_an_undeclared_unit_is_not_a_time(
    contract: Contract, changed: Callable[..., Contract]
) -> None:
    micros = "1772445600000001"
    assert [reason for reason, *_ in verdicts(fixed("event_time", [micros], contract))] == [
        "not_a_time"
    ]
    declared = changed(event_time={"formats": ["epoch_us"]})
    assert fixed("event_time", [micros], declared).kept["event_time"].to_list() == [
        datetime(2026, 3, 2, 10, 0, 0, 1, tzinfo=UTC)
    ]
    assert [
        reason for reason, *_ in verdicts(fixed("event_time", ["2026-03-02T10:00:00Z"], declared))
    ] == ["not_a_time"]


@pytest.mark.parametrize("typed", [False, True])
def test_naive_times_of_a_declared_zone(changed: Callable[..., Contract], typed: bool) -> None:
    contract = changed(event_time={"timezone": "Europe/Berlin"})
    texts = pl.Series(["2025-07-01T12:00:00", "2025-03-30T02:30:00", "2025-10-26T02:30:00"])
    cleaned = fixed("event_time", texts.str.to_datetime() if typed else texts, contract)
    assert cleaned.kept["event_time"].to_list() == [
        datetime(2025, 7, 1, 10, tzinfo=UTC),
        datetime(2025, 10, 26, 0, 30, tzinfo=UTC),
    ]
    assert [(reason, column) for reason, column, _ in verdicts(cleaned)] == [
        ("not_a_time", "event_time")
    ]


@pytest.mark.parametrize(
    ("column", "values", "kept", "reasons"),
    [
        (
            "quantity",
            pl.Series([1.7, 3.0, float("nan")]),
            [3],
            ["not_an_integer", "not_an_integer"],
        ),
        ("quantity", pl.Series([5, 0, None]), [5, 1], ["out_of_bounds"]),
        ("quantity", pl.Series([Decimal("2.00"), Decimal("2.50")]), [2], ["not_an_integer"]),
        ("quantity", pl.Series([None, None], dtype=pl.Null), [1, 1], []),
        ("quantity", pl.Series([2**64 - 1], dtype=pl.UInt64), [], ["out_of_bounds"]),
        (
            "value",
            pl.Series([0.1, float("inf"), float("nan"), None]),
            [0.1, None],
            ["not_a_decimal", "not_a_decimal"],
        ),
        ("value", pl.Series([Decimal("19.99"), Decimal("-1.00")]), [19.99], ["out_of_bounds"]),
        ("user_id", pl.Series([7.0, 7.5, float("nan"), 2.0**53]), ["7"], ["bad_id"] * 3),
        ("user_id", pl.Series(["u1", "null"], dtype=pl.Categorical), ["u1"], ["nobody"]),
        ("user_id", pl.Series([7, 0, -1]), ["7"], ["nobody"] * 2),
        ("user_id", pl.Series([True, False]), [], ["nobody"] * 2),
        ("user_id", pl.Series([None], dtype=pl.Null), [], ["missing"]),
        ("event_time", pl.Series([date(2026, 3, 1)]), [], ["not_a_time"]),
        ("event_time", pl.Series(["2026-03-01T00:00:00"]).str.to_datetime(), [], ["naive_time"]),
        ("event_time", pl.Series([RECORDED]).dt.convert_time_zone("Asia/Tokyo"), [RECORDED], []),
        (
            "event_time",
            pl.Series([1772445600.5, 1772445600.0]),
            [datetime(2026, 3, 2, 10, tzinfo=UTC)],
            ["not_a_time"],
        ),
        (
            "event_time",
            pl.Series([1, 1000]).cast(pl.Datetime("ns", "UTC")),
            [],
            ["not_a_time", "out_of_bounds"],
        ),
    ],
)
def test_typed_deliveries_are_read_as_strictly(
    contract: Contract, column: str, values: pl.Series, kept: list[Any], reasons: list[str]
) -> None:
    cleaned = fixed(column, values, contract)
    assert cleaned.kept[column].to_list() == kept
    assert [reason for reason, *_ in verdicts(cleaned)] == reasons


def test_column_of_bytes_is_refused_by_name(contract: Contract) -> None:
    with pytest.raises(ContractError, match="user_id holds Binary"):
        fixed("user_id", pl.Series([b"u1"]), contract)


def test_pattern_holds_for_the_whole_id_after_its_case(changed: Callable[..., Contract]) -> None:
    cleaned = fixed(
        "item_id",
        ["85123a", "85123Ax", "postage"],
        changed(item_id={"case": "upper", "pattern": "[0-9]{5}[A-Z]?"}),
    )
    assert cleaned.kept["item_id"].to_list() == ["85123A"]
    assert verdicts(cleaned) == [
        ("pattern", "item_id", "85123Ax"),
        ("pattern", "item_id", "postage"),
    ]


def test_first_broken_column_of_the_contract_gives_the_reason(contract: Contract) -> None:
    cleaned = fix(aligned({"quantity": "x", "user_id": "nan", "value": "y"}), contract)
    assert verdicts(cleaned) == [("nobody", "user_id", "nan")]
    assert cleaned.rejected["quantity"].to_list() == ["x"]
    assert cleaned.rejected["delivered_value"].to_list() == ["y"]


def test_empty_day_and_day_of_rejections_only_keep_the_schema(contract: Contract) -> None:
    for frame in (aligned({}).clear(), aligned({"user_id": ""}, {"user_id": "nan"})):
        cleaned = fix(frame, contract)
        assert cleaned.kept.is_empty()
        assert cleaned.kept.schema == NUMBERED
        assert cleaned.rejected.schema["reason"] == pl.String


def test_ignored_events_are_counted_but_neither_kept_nor_rejected(tmp_path: Path) -> None:
    text = CONTRACT_FILE.read_text()
    path = tmp_path / "contract.yaml"
    path.write_text(text + "  ignore: [scroll, Session_Start]\n")
    frame = aligned(
        {"event_type": " Scroll ", "item_id": None, "user_id": "guest", "event_time": "x"},
        {"event_type": "session_start", "quantity": "-1"},
        {"event_type": "scrolled"},
        {"event_type": "view"},
    )
    cleaned = fix(frame, load_contract(path))
    assert cleaned.ignored["event"].to_list() == ["scroll", "session_start"]
    assert cleaned.kept["row"].to_list() == [3]
    assert verdicts(cleaned) == [("unknown_event", "event_type", "scrolled")]
