"""Values: how one delivered column is read by its rule in the contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from recsys_ops.cleaning.contract import (
    TIME,
    ColumnRule,
    DecimalRule,
    EventRule,
    IntegerRule,
    TextRule,
    TimeRule,
)
from recsys_ops.cleaning.time_formats import ZONE, read_time, time_format
from recsys_ops.errors import ContractError

MAX_ID_LENGTH = 200
# an id must show every character, and one that is no mark: characters that show nothing, and the
# character that replaces undecodable bytes; variation selectors are part of emoji
INVISIBLE = (
    r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\x{2800}\x{1D159}\x{FFFD}]"
    r"|[\p{Default_Ignorable_Code_Point}--\x{FE00}-\x{FE0F}]|^[\p{M}\p{Z}]+$"
)
_AROUND = r"[[:punct:]–—\s]*"
# what programs write for "no value": words, dashes, the UUIDs of zeros and of f, empty brackets,
# and templates that were not filled in, such as {{user_id}}, ${user.id}, %USER%, [[user]]
NO_VALUE = (
    rf"^{_AROUND}(?i:nan|none|null|nil|nat|undefined|n/a|not[ _-]?set|object object)?{_AROUND}$"
    r"|^(?i:<na>|\\n|[{(]?(?:0{8}(?:-?0{4}){3}-?0{12}|f{8}(?:-?f{4}){3}-?f{12})[)}]?)$"
    r"|\{\{.*\}\}|\{%.*%\}|[$#]\{.*\}|<[%?].*[%?]>|\[\[.*\]\]|\*\|.*\|\*|(?i:%7b%7b|(?:\$|%24)%7b)"
    r"|^(?:\{[A-Za-z_][\w.]*\}|\[[A-Za-z_][\w.]*\]|%{1,2}[A-Za-z_]\w*%{1,2}|%\(\w+\)s|%[sd])$"
    r"|^(?:\$[A-Z_]+|__[A-Z_]+__|@@\w+@@)$"
)
# what programs write where nobody is signed in, or where a field's name took the place of its
# value. PostHog refuses `0`, `guest`, `true`, `id` and the like; WooCommerce, WordPress, Drupal,
# PrestaShop and OpenCart give guests the number 0, and -1 stands for "unknown" in warehouses.
NOBODY = (
    rf"^{_AROUND}(?i:0+|na|anon|anonym|anonymous(?:[ _-]?(?:user|customer|visitor))?|nobody|visitor"
    r"|guest(?:[ _-]?(?:user|customer|visitor|checkout))?|unknown(?:[ _-]?(?:user|customer))?"
    r"|no[ _-]?(?:user|customer|name|id|one|value)|un(?:identified|registered|authenticated|set)"
    r"|not[ _-]?(?:logged[ _-]?in|authenticated|available|provided|known|defined|found|applicable)"
    r"|logged[ _-]?out|empty|blank|missing|default|deleted(?:[ _-]?user)?|removed|redacted|hidden"
    r"|true|false|string|x{3,}|e[ _-]?mail|(?:(?:user|customer|client|distinct|visitor)[ _-]?)?id"
    r"|user|customer|gast|invité|invitado|convidado|ospite|гость|anonyme|anónimo|anonimo|аноним"
    rf"|unbekannt|inconnu|desconocido|sconosciuto|匿名|游客){_AROUND}$|^-1$"
)
INTEGER = r"^(0|-?[1-9][0-9]*)$"
DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
# the zeros that end a fraction, and the point if nothing else is behind it; becomes ${1}
ENDING_ZEROS = r"(\.[0-9]*[1-9])0+$|\.0+$"
NAIVE = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6}0{0,3})?"
)
FIRST, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
EPOCHS = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6}
EXACT_FLOAT = 2.0**53

# reason → the condition under which a value is rejected; the first that holds counts
Rejections = dict[str, pl.Expr]


@dataclass(frozen=True)
class Reading:
    """The expressions that read a column, in the order in which they are computed.

    text : the delivered value as text, in the column ``<name> text``; blank text becomes null.
    part : an intermediate result, from the text, in the column ``<name> part``.
    value : the value, from text and part, in the column ``<name> value``.
    rejections : conditions on all three under which the row is rejected.

    Each gets a column, because Polars computes an expression again wherever it is repeated.
    """

    text: pl.Expr
    part: pl.Expr
    value: pl.Expr
    rejections: Rejections


def read_column(
    name: str, dtype: pl.DataType, rule: ColumnRule, event_names: dict[str, str]
) -> Reading:
    """How a delivered column of a type is read by its rule.

    event_names : delivered event name, lower case → canonical event type.
    Text is trimmed. Blank text is an absent value: `default`, null, or the reason ``missing``. A
    decimal becomes the double nearest to its text; integers and times are exact.

    Raises ContractError for a column of a type that holds no single value (lists, structs, bytes).
    """
    delivered, text, part, read = (
        pl.col(name),
        pl.col(f"{name} text"),
        pl.col(f"{name} part"),
        pl.col(f"{name} value"),
    )
    part_made = pl.lit(None)
    match rule:
        case TextRule():
            value, rejections = _text(name, text, read, rule, dtype)
        case IntegerRule():
            value, rejections = _integer(text, read, rule)
        case DecimalRule():
            value, rejections = _decimal(delivered, text, read, rule, dtype)
        case TimeRule() if isinstance(dtype, pl.Datetime):
            value, rejections = _typed_time(delivered, read, rule, dtype)
        case TimeRule():
            part_made = pl.when(text.str.contains("^[0-9]{9,16}$")).then(text).cast(pl.Int64)
            value, rejections = _written_time(text, part, read, rule)
        case EventRule():
            part_made = text.str.to_lowercase().cast(pl.Enum(list(event_names)), strict=False)
            value = _named(part, event_names)
            rejections = {"unknown_event": read.is_null()}
    absent = delivered.is_null() if isinstance(dtype, pl.Datetime) else text.is_null()
    rejections = {reason: ~absent & condition for reason, condition in rejections.items()}
    if rule.default is not None:
        value = pl.when(absent).then(pl.lit(rule.default)).otherwise(value)
    elif not rule.nullable:
        rejections = {"missing": absent, **rejections}
    written = as_text(name, dtype)
    return Reading(
        written.str.strip_chars() if dtype == pl.String else written, part_made, value, rejections
    )


def with_readings(rows: pl.LazyFrame, readings: Mapping[str, Reading]) -> pl.LazyFrame:
    """The rows with the columns ``<name> text``, ``<name> part`` and ``<name> value``."""
    texts = [f"{name} text" for name in readings]
    return (
        rows.with_columns(reading.text.alias(f"{name} text") for name, reading in readings.items())
        .with_columns(pl.when(pl.col(text) != "").then(text).alias(text) for text in texts)
        .with_columns(reading.part.alias(f"{name} part") for name, reading in readings.items())
        .with_columns(reading.value.alias(f"{name} value") for name, reading in readings.items())
    )


def is_no_value(name: str, text: pl.Expr, rule: TextRule) -> pl.Expr:
    """Whether the trimmed text of an id is a word for no value, or, of a user, for nobody."""
    is_word = text.str.contains(f"{NO_VALUE}|{NOBODY}" if name == "user_id" else NO_VALUE)
    return is_word & ~text.is_in(rule.except_) if rule.except_ else is_word


def first_reason(rejections: Rejections) -> pl.Expr:
    """The reason of the first condition that holds, null if none does."""
    return pl.coalesce(
        pl.when(condition).then(pl.lit(reason)) for reason, condition in rejections.items()
    )


def as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column's values as text, numbers without the zeros that end a fraction: 1.0 is 1.

    Raises ContractError for a column of a type that holds no single value.
    """
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Unknown):
        raise ContractError(
            f"the delivered column {name} holds {dtype}: deliver text, numbers or times"
        )
    value = pl.col(name)
    if dtype.is_float():
        whole = (value == value.floor()) & (value.abs() < EXACT_FLOAT)
        return (
            pl.when(whole)
            .then(value)
            .cast(pl.Int64)
            .cast(pl.String)
            .fill_null(value.cast(pl.String))
        )
    if dtype.is_decimal():
        return value.cast(pl.String).str.replace(ENDING_ZEROS, "${1}")
    return value.cast(pl.String)


def _named(text: pl.Expr, names: dict[str, str]) -> pl.Expr:
    """The canonical event type of a name, null for an unknown name.

    `replace_strict` would hold all rows in memory.
    """
    return pl.coalesce(
        pl.when(text.is_in([name for name, type_ in names.items() if type_ == canonical])).then(
            pl.lit(canonical)
        )
        for canonical in dict.fromkeys(names.values())
    )


def _text(
    name: str, text: pl.Expr, read: pl.Expr, rule: TextRule, dtype: pl.DataType
) -> tuple[pl.Expr, Rejections]:
    cased = {"upper": text.str.to_uppercase(), "lower": text.str.to_lowercase(), None: text}[
        rule.case
    ]
    rejections: Rejections = {}
    if rule.type == "id":
        unfit = text.str.contains(INVISIBLE) | (text.str.len_chars() > MAX_ID_LENGTH)
        # a float that is not an exact whole number is no longer the id that it was made from
        lost = ~text.str.contains(INTEGER) if dtype.is_float() else pl.lit(False)
        rejections["bad_id"] = unfit | lost
        word = "nobody" if name == "user_id" else "bad_id"
        rejections[word] = is_no_value(name, text, rule) | rejections.get(word, pl.lit(False))
    if rule.pattern is not None:
        rejections["pattern"] = ~read.str.contains(rf"\A(?:{rule.pattern})\z")
    return cased, rejections


def _integer(text: pl.Expr, read: pl.Expr, rule: IntegerRule) -> tuple[pl.Expr, Rejections]:
    # an integer that does not fit 64 bits is null
    return text.cast(pl.Int64, strict=False), {
        "not_an_integer": ~text.str.contains(INTEGER),
        "out_of_bounds": ~read.is_between(rule.min, rule.max).fill_null(False),
    }


def _decimal(
    delivered: pl.Expr, text: pl.Expr, read: pl.Expr, rule: DecimalRule, dtype: pl.DataType
) -> tuple[pl.Expr, Rejections]:
    if dtype.is_float():
        value, written = delivered.cast(pl.Float64), delivered.is_finite()
    else:
        value, written = text.cast(pl.Float64, strict=False), text.str.contains(DECIMAL)
    return value, {"not_a_decimal": ~written, "out_of_bounds": ~read.is_between(rule.min, rule.max)}


def _written_time(
    text: pl.Expr, number: pl.Expr, read: pl.Expr, rule: TimeRule
) -> tuple[pl.Expr, Rejections]:
    readings = _zoned_times(text, rule.formats)
    rejections: Rejections = {}
    if rule.timezone is None:
        naive = _naive_times(pl.when(read.is_null()).then(text), rule.formats)
        rejections["naive_time"] = pl.any_horizontal(False, *(time.is_not_null() for time in naive))
    else:
        naive = _naive_times(text, rule.formats)
        readings += [_in_utc(time, rule.timezone) for time in naive]
    # plausible seconds, milliseconds and microseconds differ in their number of digits, so a number
    # is at most one of them
    for name in rule.formats:
        if name in EPOCHS:
            scale = EPOCHS[name]
            plausible = number.is_between(
                int(FIRST.timestamp()) * scale, int(END.timestamp()) * scale, closed="left"
            )
            readings.append(
                pl.when(plausible)
                .then(number * (10**6 // scale))
                .cast(pl.Datetime("us"))
                .dt.replace_time_zone("UTC")
            )
    return pl.coalesce(*readings, pl.lit(None, TIME)), rejections | _time_rejections(read)


def _zoned_times(text: pl.Expr, formats: Sequence[str]) -> list[pl.Expr]:
    """The readings of the formats with a zone; ISO 8601 as databases write it, too.

    Such as `2026-03-02 10:00:00 UTC` and `2026-03-02 10:00:00 +0100`.
    """
    patterns = [time_format(name) for name in formats if "%" in name]
    readings = [read_time(text, pattern) for pattern in patterns if pattern.zoned]
    if "iso8601" not in formats:
        return readings
    iso8601 = (
        pl.when(text.str.contains(f"{NAIVE} ?{ZONE}$"))
        .then(text)
        .str.replace(" ?(?:UTC|GMT)$", "Z")
        .str.replace("T", " ", literal=True)
        .str.to_datetime("%Y-%m-%d %H:%M:%S%.f %#z", time_unit="us", time_zone="UTC", strict=False)
    )
    return [iso8601, *readings]


def _naive_times(text: pl.Expr, formats: Sequence[str]) -> list[pl.Expr]:
    """The readings of the formats without a zone, as written."""
    patterns = [time_format(name) for name in formats if "%" in name]
    readings = [read_time(text, pattern) for pattern in patterns if not pattern.zoned]
    if "iso8601" not in formats:
        return readings
    iso8601 = (
        pl.when(text.str.contains(f"{NAIVE}$"))
        .then(text)
        .str.replace("T", " ", literal=True)
        .str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    )
    return [iso8601, *readings]


def _typed_time(
    delivered: pl.Expr, read: pl.Expr, rule: TimeRule, dtype: pl.Datetime
) -> tuple[pl.Expr, Rejections]:
    exact = delivered.cast(pl.Datetime("us", dtype.time_zone))
    moment = pl.when(exact.cast(dtype) == delivered).then(exact)
    if dtype.time_zone is not None:
        return moment.dt.convert_time_zone("UTC"), _time_rejections(read)
    if rule.timezone is None:
        return pl.lit(None, TIME), {"naive_time": moment.is_not_null(), **_time_rejections(read)}
    return _in_utc(moment, rule.timezone), _time_rejections(read)


def _time_rejections(read: pl.Expr) -> Rejections:
    return {
        "not_a_time": read.is_null(),
        "out_of_bounds": ~read.is_between(FIRST, END, closed="left"),
    }


def _in_utc(moment: pl.Expr, timezone: str) -> pl.Expr:
    """A naive time, read in a zone.

    In an hour that occurs twice it is the earlier time; in an hour that is skipped it is null.
    """
    return moment.dt.replace_time_zone(
        timezone, ambiguous="earliest", non_existent="null"
    ).dt.convert_time_zone("UTC")
