"""Time formats: how a pattern such as ``%d/%m/%Y %H:%M:%S %z`` reads a text."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import permutations

import polars as pl

ZONE = r"(?:Z|UTC|GMT|[+-](?:(?:0[0-9]|1[0-3])(?::?[0-5][0-9])?|14(?::?00)?))"
_MONTHS = "January February March April May June July August September October November December"
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"


def _one_of(names: str, length: int | None = None) -> str:
    return f"(?i:{'|'.join(name[:length] for name in names.split())})"


# what each directive matches; two digits of a year would be a guess, so there is no %y
DIRECTIVES = {
    "%Y": "[0-9]{4}",
    "%m": "(?:0[1-9]|1[0-2])",
    "%-m": "(?:0?[1-9]|1[0-2])",
    "%b": _one_of(_MONTHS, 3),
    "%B": _one_of(_MONTHS),
    "%d": "(?:0[1-9]|[12][0-9]|3[01])",
    "%-d": "(?:0?[1-9]|[12][0-9]|3[01])",
    "%a": _one_of(_WEEKDAYS, 3),
    "%A": _one_of(_WEEKDAYS),
    "%H": "(?:[01][0-9]|2[0-3])",
    "%-H": "(?:[01]?[0-9]|2[0-3])",
    "%I": "(?:0[1-9]|1[0-2])",
    "%-I": "(?:0?[1-9]|1[0-2])",
    "%p": "(?i:AM|PM)",
    "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]",
    ".%f": r"\.[0-9]{1,6}0{0,3}",
    "%z": ZONE,
}
_PARTS = re.compile(r"(\.%f|%-?[A-Za-z%])")
# each part of a time, and the directives of which exactly one gives it
_NEEDED = {
    "year": ("%Y",),
    "month": ("%m", "%-m", "%b", "%B"),
    "day": ("%d", "%-d"),
    "hour": ("%H", "%-H", "%I", "%-I"),
    "minute": ("%M",),
}
# ISO 8601 is read by `parsing`; here it stands for comparison with patterns
_ISO8601 = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S%z", "%Y-%m-%dT%H:%M:%S%z")
_PROBES = (datetime(2003, 4, 5, 16, 7, 8, tzinfo=UTC), datetime(2010, 11, 12, 1, 2, 3, tzinfo=UTC))


@dataclass(frozen=True)
class TimeFormat:
    """A checked pattern.

    regex : matches the whole text. pattern : in the notation of Polars.
    zoned : the text has a zone.
    """

    regex: str
    pattern: str
    zoned: bool


def time_format(pattern: str) -> TimeFormat:
    """Check a pattern and translate it.

    Raises ValueError for a pattern that leaves anything to a guess.
    """
    parts = _PARTS.split(pattern)
    directives = [part for part in parts[1::2] if part != "%%"]
    unknown = [directive for directive in directives if directive not in DIRECTIVES]
    if unknown or "%" in "".join(parts[::2]):
        raise ValueError(
            f"{(unknown or ['%'])[0]} in {pattern!r} is not known; "
            f"known are {' '.join(DIRECTIVES)} and %%"
        )
    for name, choices in _NEEDED.items():
        if sum(directives.count(choice) for choice in choices) != 1:
            raise ValueError(f"{pattern!r} must give the {name} once, by {' or '.join(choices)}")
    if twice := {directive for directive in directives if directives.count(directive) > 1}:
        raise ValueError(f"{pattern!r} has {min(twice)} twice")
    if ("%p" in directives) != bool({"%I", "%-I"}.intersection(directives)):
        raise ValueError(f"{pattern!r}: %I and %p, the hour of twelve and AM or PM, go together")
    if ".%f" in pattern and "%S.%f" not in pattern:
        # Polars would take the day alone, without its time
        raise ValueError(f"{pattern!r}: .%f, the fraction of a second, must follow %S")
    if joined := re.search("%-[a-zA-Z](?=%)", pattern):
        raise ValueError(f"{pattern!r}: after {joined[0]} must come a separator")
    if word := re.search(r"\b(Z|UTC|GMT)\b|(?<=%S)Z|(?<=%f)Z", "".join(parts[::2])):
        raise ValueError(f"{pattern!r} has {word[0]} as text: write %z, which reads it as a zone")
    matched = (
        re.escape(part.replace("%%", "%")) if index % 2 == 0 or part == "%%" else DIRECTIVES[part]
        for index, part in enumerate(parts)
    )
    translated = (part.replace(".%f", "%.f").replace("%-", "%") for part in parts)
    return TimeFormat(f"^{''.join(matched)}$", "".join(translated), "%z" in directives)


def read_time(text: pl.Expr, format_: TimeFormat) -> pl.Expr:
    """The time in UTC, or without a zone if the format has none; null where it does not match."""
    matching = pl.when(text.str.contains(format_.regex)).then(text)
    if not format_.zoned:
        return matching.str.to_datetime(format_.pattern, time_unit="us", strict=False)
    return matching.str.replace(r"\b(?:Z|UTC|GMT)\b", "+0000").str.to_datetime(
        format_.pattern.replace("%z", "%#z"), time_unit="us", time_zone="UTC", strict=False
    )


def check_unambiguous(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the formats. Raises ValueError when two of them read a text as different times."""
    patterns = [
        (name, pattern)
        for name in formats
        for pattern in (_ISO8601 if name == "iso8601" else (name,))
        if "%" in pattern
    ]
    for (name, pattern), (other_name, other) in permutations(patterns, 2):
        for probe in _PROBES:
            read = _read(probe.strftime(pattern), other)
            if read is not None and read != _read(probe.strftime(pattern), pattern):
                raise ValueError(
                    f"{name!r} and {other_name!r} read {probe.strftime(pattern)!r} as different "
                    "times: declare only the one that the shop writes"
                )
    return formats


def _read(text: str, pattern: str) -> datetime | None:
    if not re.fullmatch(time_format(pattern).regex, text):
        return None
    time = datetime.strptime(text, pattern.replace("%-", "%"))  # noqa: DTZ007
    return time.replace(tzinfo=time.tzinfo or UTC)
