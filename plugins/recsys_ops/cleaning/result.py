"""The result of a cleaning step, and how to divide rows into kept and rejected."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

REASON_COLUMNS = ("reason", "column", "value")


@dataclass(frozen=True)
class Cleaned:
    """The rows of a step, each in exactly one of the lazy frames, in their original order.

    kept : the rows for the next step.
    rejected : the other rows with their original columns, and ``reason`` (a code), ``column`` and
        ``value`` (the original text), all String. The last two are null if the reason is not about
        a single column. An original column with one of these names becomes ``delivered_<name>``.
    notes : other figures of the step for its report, as JSON values.
    ignored : the rows that the contract wants neither kept nor rejected, if any: ``row`` and the
        delivered name of the ``event``.
    warnings : sentences for the task's log, without personal data.
    """

    kept: pl.LazyFrame
    rejected: pl.LazyFrame
    notes: dict[str, object] = field(default_factory=dict)
    ignored: pl.LazyFrame | None = None
    warnings: tuple[str, ...] = ()


def hidden_column(name: str) -> str:
    """The name of a working column; a blank before it keeps it apart from delivered columns."""
    return f" {name}"


def original_columns(
    columns: Iterable[str], reserved: Sequence[str] = REASON_COLUMNS
) -> list[pl.Expr]:
    """The columns, renamed where they have a reserved name."""
    return [
        pl.col(name).alias(f"delivered_{name}" if name in reserved else name) for name in columns
    ]


def split_rejected(
    events: pl.LazyFrame,
    rejections: pl.DataFrame,
    notes: dict[str, object],
    warnings: tuple[str, ...] = (),
) -> Cleaned:
    """Divide rows into kept and rejected ones.

    events : LazyFrame, (n_rows, canonical event frame and ``row``), in ascending order of ``row``.
    rejections : DataFrame, (n_rejected, 4), ``row``, ``reason``, ``column`` and ``value``, each row
        once, in any order.
    """
    is_rejected = is_member(rejections["row"])
    rejected = events.filter(is_rejected).select(original_columns(events.collect_schema().names()))
    return Cleaned(
        events.filter(~is_rejected),
        rejected.join(rejections.lazy(), on="row", how="left", maintain_order="left"),
        notes,
        warnings=warnings,
    )


def is_member(indices: pl.Series, column: str = "row") -> pl.Expr:
    """Whether the index in a column is one of `indices`.

    Memory: one byte for each number up to the largest index. A join would hold rows in memory.
    """
    members = indices.to_numpy()
    is_in = np.zeros(int(members.max(initial=0)) + 2, bool)
    is_in[members] = True
    return pl.col(column).map_batches(
        lambda column: pl.Series(is_in[np.minimum(column.to_numpy(), len(is_in) - 1)]),
        return_dtype=pl.Boolean,
        is_elementwise=True,
    )
