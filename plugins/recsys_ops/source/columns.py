"""Columns: the values of a database in types that are the same for every database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
import pyarrow as pa
from pymysql.constants import FIELD_TYPE

from recsys_ops.cleaning.parsing import ENDING_ZEROS, as_text
from recsys_ops.errors import DataError

_DECIMAL_DIGITS = 38
# MySQL writes a FLOAT with six digits; this is the scale of one whose digits are not declared
_FLOAT_LIMIT, _FLOAT_SCALE = 10**6, 31


def common_schema(schemas: Iterable[Mapping[str, pl.DataType]]) -> dict[str, pl.DataType]:
    """Every column with its type: text if the schemas differ or all are Null."""
    dtypes: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            dtypes.setdefault(name, set()).add(dtype)
    not_null = {name: of_column - {pl.Null()} for name, of_column in dtypes.items()}
    return {
        name: next(iter(of_column)) if len(of_column) == 1 else pl.String()
        for name, of_column in not_null.items()
    }


def as_common(
    schema: Mapping[str, pl.DataType], common: Mapping[str, pl.DataType]
) -> list[pl.Expr]:
    """The expressions that convert a frame from its schema to the common one."""
    return [_converted(name, schema.get(name), dtype).alias(name) for name, dtype in common.items()]


def _converted(name: str, dtype: pl.DataType | None, common: pl.DataType) -> pl.Expr:
    if dtype is None:
        return pl.lit(None, common)
    return as_text(name, dtype) if common == pl.String else pl.col(name).cast(common)


def check_calendar(table: pa.Table) -> None:
    """Raises DataError for PostgreSQL's infinity and for years that Polars cannot hold."""
    times = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    bounds = pl.all().cast(pl.Date).is_between(date(1, 1, 1), date(9999, 12, 31))
    for name, is_valid in (
        pl.DataFrame(table.select(times)).select(bounds.all()).to_dicts()[0].items()
        if times
        else ()
    ):
        if not is_valid:
            raise DataError(
                f"column {name} holds an infinite time or a year outside 1 … 9999: "
                "cast it to text in include/sql"
            )


def check_utf8(table: pa.Table, rows_before: int) -> None:
    """Raises DataError for the first text that is not UTF-8."""
    for name in [field.name for field in table.schema if pa.types.is_string(field.type)]:
        try:
            table[name].validate(full=True)
        except pa.ArrowInvalid:
            stored = table[name].cast(pa.binary()).to_pylist()
            row = next(row for row, text in enumerate(stored) if not _is_utf8(text or b""))
            raise _not_utf8(name, rows_before + row) from None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(name: str, rows_before: int) -> DataError:
    return DataError(
        f"column {name} holds text that is not UTF-8, first in row {rows_before + 1:,} of a query: "
        "convert it in include/sql"
    )


def with_decimals(table: pa.Table, scales: Mapping[str, int | None]) -> pa.Table:
    """The table with its numerics, which are text, as decimals.

    scales : their declared numbers of digits behind the point
    """
    if not scales:
        return table
    numerics = pl.DataFrame(table.select(list(scales)))
    for name, scale in scales.items():
        column = _as_decimals(numerics[name], scale).to_arrow()
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _as_decimals(text: pl.Series, scale: int | None) -> pl.Series:
    """Exact numerics from their text; text again if a decimal cannot hold one of them."""
    if scale is not None and 0 <= scale <= _DECIMAL_DIGITS:
        decimals = text.cast(pl.Decimal(_DECIMAL_DIGITS, scale), strict=False)
        if decimals.null_count() == text.null_count():
            return decimals
    return text.str.replace(ENDING_ZEROS, "${1}")


@dataclass(frozen=True)
class Described:
    """A column as the driver describes it; SQLite gives the name alone."""

    name: str
    type_code: Any
    scale: int | None


def column(described: Described, values: tuple[Any, ...], rows_before: int) -> pl.Series:
    """The values in their common type.

    They become text if their types mix or if they are integers beyond 64 bits. Bytes become
    hexadecimal digits.
    """
    name = described.name
    types = set(map(type, values)) - {type(None)}
    if len(types) > 1 and bytes in types:
        raise DataError(
            f"column {name} mixes bytes with other values: cast it to text in include/sql"
        )
    try:
        if len(types) > 1:
            return _mixed(name, values, types)
        series = pl.Series(name, values)
    except UnicodeEncodeError as error:
        raise _not_utf8(name, rows_before + values.index(error.object)) from None
    if described.type_code in (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL):
        return _as_decimals(series.cast(pl.String), described.scale)
    if described.type_code == FIELD_TYPE.FLOAT and described.scale == _FLOAT_SCALE:
        _check_float(series)
    if series.dtype == pl.Binary:
        return series.bin.encode("hex")
    return series.cast(pl.String) if series.dtype == pl.Int128 else series


def _mixed(name: str, values: tuple[Any, ...], types: set[type]) -> pl.Series:
    """Values of several types as text, and a float as the same number would be as an integer."""
    text = pl.Series("text", values, dtype=pl.String, strict=False)
    if float not in types:
        return text.alias(name)
    floats = [value if isinstance(value, float) else None for value in values]
    frame = pl.DataFrame({"float": pl.Series(floats, dtype=pl.Float64), "text": text})
    return frame.select(pl.coalesce(as_text("float", pl.Float64()), "text").alias(name)).to_series()


def _check_float(series: pl.Series) -> None:
    """Raises DataError for a number whose last digits the database has already rounded away."""
    name, largest = series.name, series.abs().max()
    if isinstance(largest, float) and largest >= _FLOAT_LIMIT:
        raise DataError(
            f"column {name} is a FLOAT, of which the database writes six digits, and holds larger "
            f"numbers: write CAST({name} AS DOUBLE) AS {name} in include/sql"
        )
