"""Values: one column at a time from what was delivered to what the contract means, strictly or not at all."""

from datetime import UTC, datetime

import polars as pl

from recsys_ops.cleaning.contract import TIME, ColumnRule, DecimalRule, EventRule, IntegerRule, TextRule, TimeRule
from recsys_ops.errors import ContractError

MAX_ID_LENGTH = 200
NOT_IDS = ("nan", "none", "null", "nil", "nat", "undefined", "<na>")
INVISIBLE = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"
INTEGER = r"^(0|-?[1-9][0-9]*)$"
DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
NAIVE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6}0{0,3})?"
OFFSET = r"(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)$"
FIRST, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
EPOCHS = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6}
EXACT_FLOAT = 2.0**53

# conditions under which a value is refused, by reason, the first that holds counts
Refusals = dict[str, pl.Expr]


def read_column(delivered: pl.Series, rule: ColumnRule, event_names: dict[str, str]) -> pl.DataFrame:
    """Read a column as its rule says.

    delivered : Series, (n_rows,), text or already typed.
    event_names : delivered event name, lower case → canonical event type.
    Returns the columns ``value`` (canonical type) and ``reason`` (String, null where the value is good). Text is trimmed; blank
    text is absent, and absent is `default`, null, or the reason ``missing``. What is accepted reads back as it was written:
    a decimal is the double nearest to its text, an integer and a time are exact.

    Raises ContractError for a column of a type that holds no single value (lists, structs, bytes).
    """
    text = as_text(delivered).str.strip_chars()
    frame = pl.DataFrame({"delivered": delivered, "text": text.replace("", None)})
    value, refusals = _reader(rule, delivered.dtype, event_names)
    absent = pl.col("text").is_null()
    missing = pl.lit(None if rule.nullable or rule.default is not None else "missing", pl.String)
    refused = pl.coalesce(
        *(pl.when(condition).then(pl.lit(reason)) for reason, condition in refusals.items()), pl.lit(None, pl.String)
    )
    return (
        frame.with_columns(value=value)
        .with_columns(reason=pl.when(absent).then(missing).otherwise(refused))
        .select(pl.when(absent).then(pl.lit(rule.default)).otherwise("value").alias("value"), "reason")
    )


def as_text(column: pl.Series) -> pl.Series:
    """The values as a person would write them: whole floats and decimals without a fraction, everything else in full.

    Raises ContractError for a column of a type that holds no single value.
    """
    dtype = column.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Unknown):
        raise ContractError(f"the delivered column {column.name} holds {dtype}: deliver text, numbers or times")
    if dtype.is_float():
        value = pl.col(column.name)
        whole = (value == value.floor()) & (value.abs() < EXACT_FLOAT)
        integers = pl.when(whole).then(value).cast(pl.Int64).cast(pl.String)
        return column.to_frame().select(integers.fill_null(value.cast(pl.String))).to_series()
    if dtype.is_decimal():
        return column.cast(pl.String).str.replace(r"\.0+$", "")
    return column.cast(pl.String)


def _reader(rule: ColumnRule, dtype: pl.DataType, event_names: dict[str, str]) -> tuple[pl.Expr, Refusals]:
    match rule:
        case TextRule():
            return _text(rule, dtype)
        case IntegerRule():
            return _integer(rule)
        case DecimalRule():
            return _decimal(rule, dtype)
        case TimeRule():
            return _typed_time(rule, dtype) if isinstance(dtype, pl.Datetime) else _written_time(rule)
        case EventRule():
            name = pl.col("text").str.to_lowercase()
            value = name.replace_strict(event_names, default=None, return_dtype=pl.String)
            return value, {"unknown_event": pl.col("value").is_null()}


def _text(rule: TextRule, dtype: pl.DataType) -> tuple[pl.Expr, Refusals]:
    value = pl.col("text")
    if rule.case is not None:
        value = value.str.to_uppercase() if rule.case == "upper" else value.str.to_lowercase()
    refusals: Refusals = {}
    if rule.type == "id":
        unfit = value.str.to_lowercase().is_in(NOT_IDS) | (value.str.len_chars() > MAX_ID_LENGTH) | value.str.contains(INVISIBLE)
        # a float that is not an exact whole number has lost the id it was
        refusals["bad_id"] = unfit | ~value.str.contains(INTEGER) if dtype.is_float() else unfit
    if rule.pattern is not None:
        refusals["pattern"] = ~pl.col("value").str.contains(rf"\A(?:{rule.pattern})\z")
    return value, refusals


def _integer(rule: IntegerRule) -> tuple[pl.Expr, Refusals]:
    written = pl.col("text").str.contains(INTEGER)
    value = pl.when(written).then("text").cast(pl.Int64, strict=False)
    # an integer that does not fit 64 bits is null by now
    outside = ~pl.col("value").is_between(rule.min, rule.max).fill_null(False)
    return value, {"not_an_integer": ~written, "out_of_bounds": outside}


def _decimal(rule: DecimalRule, dtype: pl.DataType) -> tuple[pl.Expr, Refusals]:
    if dtype.is_float():
        value, written = pl.col("delivered").cast(pl.Float64), pl.col("delivered").is_finite()
    else:
        written = pl.col("text").str.contains(DECIMAL)
        value = pl.when(written).then("text").cast(pl.Float64, strict=False)
    return value, {"not_a_decimal": ~written, "out_of_bounds": ~pl.col("value").is_between(rule.min, rule.max)}


def _written_time(rule: TimeRule) -> tuple[pl.Expr, Refusals]:
    text = pl.col("text")
    readings: list[pl.Expr] = []
    refusals: Refusals = {}
    if "iso8601" in rule.formats:
        zoned = pl.when(text.str.contains(NAIVE + OFFSET)).then(text).str.replace(" ", "T", literal=True)
        naive = pl.when(text.str.contains(NAIVE + "$")).then(text).str.replace(" ", "T", literal=True)
        moment = naive.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
        readings = [
            zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False),
            _in_utc(moment, rule.timezone),
        ]
        if rule.timezone is None:
            refusals["naive_time"] = moment.is_not_null()
    # plausible seconds, milli- and microseconds have different numbers of digits: a number is at most one of them
    number = pl.when(text.str.contains("^[0-9]{9,16}$")).then(text).cast(pl.Int64)
    for name in rule.formats:
        if name in EPOCHS:
            scale = EPOCHS[name]
            plausible = number.is_between(int(FIRST.timestamp()) * scale, int(END.timestamp()) * scale, closed="left")
            readings.append(
                pl.when(plausible).then(number * (10**6 // scale)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            )
    return pl.coalesce(readings), refusals | _time_refusals()


def _typed_time(rule: TimeRule, dtype: pl.Datetime) -> tuple[pl.Expr, Refusals]:
    delivered = pl.col("delivered")
    exact = delivered.cast(pl.Datetime("us", dtype.time_zone))
    moment = pl.when(exact.cast(dtype) == delivered).then(exact)
    if dtype.time_zone is not None:
        return moment.dt.convert_time_zone("UTC"), _time_refusals()
    refusals = {"naive_time": moment.is_not_null()} if rule.timezone is None else {}
    return _in_utc(moment, rule.timezone), refusals | _time_refusals()


def _time_refusals() -> Refusals:
    outside = ~pl.col("value").is_between(FIRST, END, closed="left")
    return {"not_a_time": pl.col("value").is_null(), "out_of_bounds": outside}


def _in_utc(moment: pl.Expr, timezone: str | None) -> pl.Expr:
    """A naive time in its zone: the earlier of an hour that came twice, null for one that never was, null without a zone."""
    if timezone is None:
        return pl.lit(None, TIME)
    return moment.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
