"""What a cleaning step returns, and the one way to divide rows so that none is lost."""

from dataclasses import dataclass, field

import polars as pl

MARKS = ("reason", "column", "value")


@dataclass(frozen=True)
class Cleaned:
    """Every row that came in is in exactly one of the two frames, each in the order in which it came.

    kept : the rows for the next step.
    rejected : the other rows, their columns as they came, and ``reason`` (a code), ``column`` and ``value`` (the original
        text), all String, the last two null where no single column is to blame. An incoming column with one of these three
        names is kept as ``delivered_<name>``.
    notes : what else a person wants to know about the step; values that JSON can hold.
    """

    kept: pl.DataFrame
    rejected: pl.DataFrame
    notes: dict[str, object] = field(default_factory=dict)


def split(
    before: pl.DataFrame, marks: pl.DataFrame, after: pl.DataFrame | None = None, notes: dict[str, object] | None = None
) -> Cleaned:
    """Divide rows by their marks: a row whose ``reason`` is null is kept, as it is in `after`; the others as in `before`.

    before : DataFrame, (n_rows, any), the step's input.
    marks : DataFrame, (n_rows, 3), the String columns ``reason``, ``column``, ``value``.
    after : DataFrame, (n_rows, any), the step's output before rows are dropped; the input where the step changes none.
    """
    after = before if after is None else after
    assert before.height == marks.height == after.height, "a step must not add or lose rows before they are divided"
    good = marks["reason"].is_null()
    as_they_came = before.rename({name: f"delivered_{name}" for name in MARKS if name in before.columns})
    rejected = pl.concat([as_they_came, marks.select(MARKS)], how="horizontal").filter(~good)
    kept = after.filter(good)
    assert kept.height + rejected.height == before.height, "rows in must be rows kept plus rows rejected"
    return Cleaned(kept, rejected, notes or {})
