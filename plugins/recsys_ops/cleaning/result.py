"""What a cleaning step returns, and how rows are divided so that none is lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

MARKS = ("reason", "column", "value")


@dataclass(frozen=True)
class Cleaned:
    """Every row that came in is in exactly one of the two lazy frames, each in the order in which it came.

    kept : the rows for the next step.
    rejected : the other rows, their columns as they came, and ``reason`` (a code), ``column`` and ``value`` (the original
        text), all String, the last two null where no single column is to blame. An incoming column with one of these three
        names is kept as ``delivered_<name>``.
    notes : what else a person wants to know about the step; values that JSON can hold.
    """

    kept: pl.LazyFrame
    rejected: pl.LazyFrame
    notes: dict[str, object] = field(default_factory=dict)


def original_columns(columns: Iterable[str], reserved: Sequence[str] = MARKS) -> list[pl.Expr]:
    """The columns under names that leave the reserved ones free."""
    return [
        pl.col(name).alias(f"delivered_{name}" if name in reserved else name) for name in columns
    ]


def split_rejected(events: pl.LazyFrame, marks: pl.DataFrame, notes: dict[str, object]) -> Cleaned:
    """Divide rows that a step judged as a whole.

    events : LazyFrame, (n_rows, canonical event frame and ``row``), in ascending order of ``row``.
    marks : DataFrame, (n_rejected, 4), ``row`` once each, and ``reason``, ``column``, ``value``, in any order.
    """
    marked = is_member(marks["row"])
    rejected = events.filter(marked).select(original_columns(events.collect_schema().names()))
    return Cleaned(
        events.filter(~marked),
        rejected.join(marks.lazy(), on="row", how="left", maintain_order="left"),
        notes,
    )


def is_member(rows: pl.Series, number: str = "row") -> pl.Expr:
    """Whether the number in a column is one of these. Memory: a byte for each up to the largest; a join would hold rows."""
    numbers = rows.to_numpy()
    found = np.zeros(int(numbers.max(initial=0)) + 2, bool)
    found[numbers] = True
    return pl.col(number).map_batches(
        lambda asked: pl.Series(found[np.minimum(asked.to_numpy(), len(found) - 1)]),
        return_dtype=pl.Boolean,
        is_elementwise=True,
    )
