"""Values: turns aligned columns into the canonical event frame."""

from datetime import timedelta

import polars as pl

from recsys_ops.cleaning.contract import IGNORE, SCHEMA, Contract, TimeRule
from recsys_ops.cleaning.parsing import as_text, first_reason, read_column, with_readings
from recsys_ops.cleaning.result import Cleaned, original_columns


def fix_types(aligned: pl.LazyFrame, contract: Contract) -> Cleaned:
    """Read every value strictly by the contract.

    aligned : LazyFrame, (n_rows, ``row`` and the contract's columns), as text or already typed, as
        `align_schema` returns it.

    Keeps ``row`` and the canonical event frame (`contract.SCHEMA`). A row is rejected for the first
    column, in the contract's order, whose value breaks its rule: missing, bad_id, nobody, pattern,
    not_an_integer, not_a_decimal, not_a_time, naive_time, out_of_bounds, unknown_event, future
    (more than `max_ahead_minutes` after the row was recorded). Rows of events that the contract
    ignores are neither kept nor rejected, whatever their other values are.
    """
    dtypes = aligned.collect_schema()
    readings = {
        name: read_column(name, dtypes[name], rule, contract.event_names)
        for name, rule in contract.columns.items()
    }
    rejections = {
        name: reading.rejections | _future(name, contract) for name, reading in readings.items()
    }
    read = with_readings(aligned, readings)
    ignored = (pl.col("event_type value") == IGNORE).fill_null(False)
    conditions = [condition for column in rejections.values() for condition in column.values()]
    broken = pl.any_horizontal(condition.fill_null(False) for condition in conditions)
    kept = read.filter(~broken & ~ignored).select(
        "row", *(pl.col(f"{name} value").cast(dtype).alias(name) for name, dtype in SCHEMA.items())
    )
    return Cleaned(
        kept,
        _with_reasons(read.filter(broken & ~ignored), rejections, dtypes),
        dict(contract.metadata),
        ignored=read.filter(ignored).select("row", event="event_type part")
        if IGNORE in contract.event_types
        else None,
    )


def _future(name: str, contract: Contract) -> dict[str, pl.Expr]:
    rule = contract.columns[name]
    if not isinstance(rule, TimeRule) or rule.max_ahead_minutes is None:
        return {}
    return {
        "future": pl.col(f"{name} value")
        > pl.col("recorded_at value") + timedelta(minutes=rule.max_ahead_minutes)
    }


def _with_reasons(
    broken: pl.LazyFrame, rejections: dict[str, dict[str, pl.Expr]], dtypes: pl.Schema
) -> pl.LazyFrame:
    """The broken rows, unchanged, with the first broken column, its first reason and its text."""
    reasons = {
        name: first_reason(conditions) for name, conditions in rejections.items() if conditions
    }
    column = pl.coalesce(
        pl.when(reason.is_not_null()).then(pl.lit(name)) for name, reason in reasons.items()
    )
    value = pl.coalesce(
        pl.when(column == name).then(as_text(name, dtypes[name])) for name in reasons
    )
    return broken.select(
        *original_columns(dtypes.names()),
        reason=pl.coalesce(reasons.values()),
        column=column,
        value=value,
    )
