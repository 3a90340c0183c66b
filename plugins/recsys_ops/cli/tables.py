"""Values and tables as text for a terminal."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_MAX_CELL = 200
_PIPE_WIDTH = 10 * _MAX_CELL
_MIN_LAST_COLUMN = 12


def format_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """A table of rows with the same keys; None is a dash."""
    header = list(rows[0]) if rows else []
    return _format_cells(
        header, [["–" if value is None else str(value) for value in row.values()] for row in rows]
    )


def format_frame(frame: "pl.DataFrame") -> str:
    """A table of a DataFrame; null is blank."""
    return _format_cells(
        frame.columns,
        [["" if value is None else str(value) for value in row] for row in frame.iter_rows()],
    )


def format_number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def format_size(size: int | None) -> str:
    """Megabytes, or a dash."""
    return "–" if size is None else f"{size / 1e6:,.1f} MB"


def metric_order(metric: str) -> tuple[int, str]:
    """A sort key with which ndcg@3 comes before ndcg@20."""
    name, _, cutoff = metric.partition("@")
    return int(cutoff), name


def printable(text: str) -> str:
    """The text without control characters: an id of a visitor could hold a terminal's commands."""
    return text if text.isprintable() else ascii(text)


def _format_cells(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text. On a terminal the last column is wrapped to the terminal's width."""
    lines = [list(header), *([printable(cell)[:_MAX_CELL] for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    indent = sum(width + 2 for width in widths[:-1])
    terminal = shutil.get_terminal_size((_PIPE_WIDTH, 0)).columns
    last = max(terminal - indent, _MIN_LAST_COLUMN)
    text = []
    for cells in lines:
        first = "".join(map("{:<{}}  ".format, cells[:-1], widths))
        wrapped = textwrap.wrap(cells[-1], last) or [""]
        text += [(first + wrapped[0]).rstrip(), *(" " * indent + part for part in wrapped[1:])]
    return "\n".join(text)
