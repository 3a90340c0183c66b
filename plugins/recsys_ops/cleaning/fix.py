"""Values: aligned columns to the canonical event frame, one row an event and item."""

from datetime import timedelta

import polars as pl

from recsys_ops.cleaning.cleaned import MARKS, Cleaned, split
from recsys_ops.cleaning.contract import SCHEMA, Contract, TimeRule
from recsys_ops.cleaning.values import as_text, read_column

# a basket is several rows with one event id
KEY = ("event_id", "item_id")
CONTENT = [name for name in SCHEMA if name not in (*KEY, "row_id", "recorded_at")]


def fix_types(frame: pl.DataFrame, contract: Contract) -> Cleaned:
    """Read every value strictly and leave one row for each event and item.

    frame : DataFrame, (n_rows, the contract's columns), text or already typed, as `align_schema` leaves it.
    Returns rows of the canonical event frame (`contract.SCHEMA`). The first column of the contract that a row breaks names its
    reason: missing, bad_id, pattern, not_an_integer, not_a_decimal, not_a_time, naive_time, out_of_bounds, unknown_event,
    future (more than `max_ahead_minutes` after the row was recorded). Of several good rows with one key the one recorded last is
    kept, the greatest row id where that is equal; an earlier one is a ``duplicate`` if it says the same, else ``superseded``.
    """
    read = {name: read_column(frame[name], rule, contract.event_names) for name, rule in contract.columns.items()}
    values = pl.DataFrame({name: read[name]["value"] for name in SCHEMA})
    reasons = _future(values, pl.DataFrame({name: column["reason"] for name, column in read.items()}), contract)
    return split(frame, _repeated(values, _first_broken(frame, reasons)), values)


def _future(values: pl.DataFrame, reasons: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    for name, rule in contract.columns.items():
        if isinstance(rule, TimeRule) and rule.max_ahead_minutes is not None:
            ahead = values[name] > values["recorded_at"] + timedelta(minutes=rule.max_ahead_minutes)
            reasons = reasons.with_columns(pl.coalesce(name, pl.when(ahead).then(pl.lit("future"))).alias(name))
    return reasons


def _first_broken(frame: pl.DataFrame, reasons: pl.DataFrame) -> pl.DataFrame:
    """The marks of each row: the reason, name and original text of its first broken column."""
    broken = [name for name in reasons.columns if reasons[name].null_count() < reasons.height]
    nothing = pl.lit(None, pl.String)
    originals = pl.DataFrame([as_text(frame[name]).alias(f"was {name}") for name in broken])
    marked = pl.concat([reasons, originals], how="horizontal").with_columns(
        reason=pl.coalesce(*broken, nothing),
        column=pl.coalesce(*(pl.when(pl.col(name).is_not_null()).then(pl.lit(name)) for name in broken), nothing),
        value=_chosen(broken),
    )
    return marked.select(MARKS)


def _chosen(broken: list[str]) -> pl.Expr:
    """The original of the first broken column, which may itself be null."""
    chosen = pl.lit(None, pl.String)
    for name in reversed(broken):
        chosen = pl.when(pl.col(name).is_not_null()).then(f"was {name}").otherwise(chosen)
    return chosen


def _repeated(values: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    """The marks, and those of the good rows that a later row with the same key repeats or corrects."""
    good = values.with_row_index("position").filter(marks["reason"].is_null())
    several = good.filter(pl.len().over(KEY) > 1)
    # the length first: row ids are mostly numbers, and "10" comes after "9"
    ordered = several.sort("recorded_at", pl.col("row_id").str.len_bytes(), "row_id", "position")
    latest = pl.col("position") == pl.col("position").last().over(KEY)
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).last().over(KEY)) for name in CONTENT)
    earlier = ordered.select(
        "position", "event_id", latest=latest, repeat=pl.when(same).then(pl.lit("duplicate")).otherwise(pl.lit("superseded"))
    )
    found = marks.with_row_index("position").join(
        earlier.filter(~pl.col("latest")), on="position", how="left", maintain_order="left"
    )
    repeated = pl.col("repeat").is_not_null()
    return found.select(
        reason=pl.coalesce("reason", "repeat"),
        column=pl.when(repeated).then(pl.lit("event_id")).otherwise("column"),
        value=pl.when(repeated).then("event_id").otherwise("value"),
    )
