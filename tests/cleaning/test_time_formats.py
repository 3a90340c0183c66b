"""Times by declared formats: read as Python's own parsers read them, or not at all."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cleaning_rows import CONTRACT_FILE, fixed, verdicts

from recsys_ops.cleaning import Contract, load_contract
from recsys_ops.cleaning.contract import TimeRule
from recsys_ops.cleaning.time_formats import DIRECTIVES, read_time, time_format

APACHE = "%d/%b/%Y:%H:%M:%S %z"
MAIL = "%a, %d %b %Y %H:%M:%S %z"
PATTERNS = (
    APACHE,
    MAIL,
    "%A, %-d %B %Y %-I:%M:%S %p %z",
    "%a %b %d %H:%M:%S %z %Y",
    "%d.%m.%Y %H:%M:%S.%f %z",
    "%m/%d/%Y %I:%M:%S %p %z",
    "%Y%m%dT%H%M%S%z",
)
BASE = load_contract(CONTRACT_FILE)
few = settings(max_examples=60)
zones = st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001
    datetime(2026, 3, 1),  # noqa: DTZ001
    timezones=zones,
)


def declared(*formats: str) -> Contract:
    rule = TimeRule(type="time", formats=formats)
    return BASE.model_copy(update={"columns": BASE.columns | {"event_time": rule}})


@few
@given(st.lists(moments, min_size=1, max_size=8), st.sampled_from(PATTERNS))
def test_a_text_in_the_declared_pattern_is_the_time_it_says(
    times: list[datetime], pattern: str
) -> None:
    cleaned = fixed("event_time", [time.strftime(pattern) for time in times], declared(pattern))
    parsed = [by_python(time.strftime(pattern), pattern) for time in times]
    assert cleaned.kept["event_time"].to_list() == parsed


@few
@given(st.lists(st.text("0123456789/:+- ,.APMUTCZJanFebMarMon", max_size=30), min_size=1))
def test_what_python_does_not_read_is_not_read_either(texts: list[str]) -> None:
    cleaned = fixed("event_time", texts, declared(*PATTERNS))
    read = dict(cleaned.kept.select("event_id", "event_time").rows())
    for i, text in enumerate(texts):
        if f"e{i}" in read:
            assert read[f"e{i}"] in [by_python(text.strip(), pattern) for pattern in PATTERNS]


def by_python(text: str, pattern: str) -> datetime | None:
    try:
        time = datetime.strptime(text, pattern.replace("%-", "%"))  # noqa: DTZ007
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


@few
@given(st.lists(moments, min_size=1, max_size=8))
def test_dates_of_mails_and_of_http_are_read_as_python_reads_them(times: list[datetime]) -> None:
    texts = [format_datetime(time) for time in times]
    texts += [format_datetime(time.astimezone(UTC), usegmt=True) for time in times]
    cleaned = fixed("event_time", texts, declared(MAIL))
    assert cleaned.kept["event_time"].to_list() == [
        parsedate_to_datetime(text).astimezone(UTC) for text in texts
    ]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2019-10-01 00:00:00 UTC", "%Y-%m-%d %H:%M:%S %Z"),
        ("2019-10-01 00:00:00.123456 UTC", "%Y-%m-%d %H:%M:%S.%f %Z"),
        ("2018-01-04 15:51:23 -0800", "%Y-%m-%d %H:%M:%S %z"),
        ("2018-01-04T15:51:23.123+01:00", "%Y-%m-%dT%H:%M:%S.%f%z"),
        ("2018-01-04 15:51:23 +05:45", "%Y-%m-%d %H:%M:%S %z"),
    ],
)
def test_iso8601_is_read_as_databases_write_it(text: str, pattern: str) -> None:
    cleaned = fixed("event_time", [text], declared("iso8601"))
    assert cleaned.kept["event_time"].to_list() == [by_python(text, pattern)]


def test_a_pattern_without_a_zone_needs_the_contracts_zone() -> None:
    text, pattern = "01/02/2020 10:00", "%d/%m/%Y %H:%M"
    assert verdicts(fixed("event_time", [text], declared(pattern))) == [
        ("naive_time", "event_time", text)
    ]
    rule = TimeRule(type="time", formats=(pattern,), timezone="Europe/Berlin")
    contract = BASE.model_copy(update={"columns": BASE.columns | {"event_time": rule}})
    assert fixed("event_time", [text], contract).kept["event_time"].to_list() == [
        datetime(2020, 2, 1, 9, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("%d/%m/%y %H:%M", "%y"),
        ("%d/%m/%Y", "must give the hour once"),
        ("%d %H:%M %Y", "must give the month once"),
        ("%Y %d/%m/%Y %H:%M", "must give the year once"),
        ("%d/%m/%Y %I:%M", "%I and %p"),
        ("%d/%m/%Y %H:%M %p", "%I and %p"),
        ("%Y-%m-%dT%H:%M:%SZ", "write %z"),
        ("%Y-%m-%d %H:%M:%S UTC", "write %z"),
        ("%Y%-m%-d %H:%M", "after %-m must come a separator"),
        ("%Y-%m-%d %H:%M:%S%f", "%f"),
        ("%Y-%m-%d %H:%M.%f", "must follow %S"),
        ("%Y-%m-%d %H:%M:%S %", "% in"),
        ("%Y-%m-%d %H:%M:%S %S", "has %S twice"),
    ],
)
def test_a_pattern_that_leaves_something_to_a_guess_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        time_format(pattern)
    assert pattern in str(error.value)


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_every_known_directive_is_read_as_python_reads_it(directive: str) -> None:
    time = datetime(2021, 2, 3, 16, 5, 6, 789000, tzinfo=UTC)
    needed = {"%Y": "%Y", "%m": "%-m %m %b %B", "%d": "%d %-d", "%H": "%H %-H %I %-I", "%M": "%M"}
    parts = [first for first, choices in needed.items() if directive not in choices.split()]
    parts += ["%S.%f" if directive == ".%f" else directive]
    parts += ["%p"] if directive in ("%I", "%-I") else []
    if directive == "%p":
        parts = [part for part in parts if part != "%H"] + ["%I"]
    pattern = "|".join(parts)
    text = time.strftime(pattern)
    read = pl.DataFrame({"time": [text]}).select(read_time(pl.col("time"), time_format(pattern)))
    assert read.item().replace(tzinfo=UTC) == by_python(text, pattern)
