"""Names: a delivery's columns under their canonical names, values untouched."""

import polars as pl

from recsys_ops.cleaning.cleaned import Cleaned, split
from recsys_ops.cleaning.contract import Contract
from recsys_ops.cleaning.values import as_text
from recsys_ops.errors import ContractError


def align_schema(frame: pl.DataFrame, contract: Contract) -> Cleaned:
    """Give every column of the contract its canonical name.

    frame : DataFrame, (n_rows, any), as delivered.
    Returns rows with exactly the contract's columns, in its order, types and values as delivered. Where a delivery has a column
    under several of its names, a row's first value that is not blank is taken, as text where
    their types differ; two that differ after trimming reject
    the row as ``alias_conflict``. A column that may be absent and is, becomes nulls. The note ``unknown_columns`` lists the
    delivered columns that the contract does not name; they are dropped from the kept rows.

    Raises ContractError when a required column is absent under all its names.
    """
    sources = {name: [s for s in (name, *rule.aliases) if s in frame.columns] for name, rule in contract.columns.items()}
    if absent := [name for name, rule in contract.columns.items() if rule.required and not sources[name]]:
        wanted = "; ".join(" or ".join((name, *contract.columns[name].aliases)) for name in absent)
        raise ContractError(
            f"the delivery of {frame.height} rows lacks the required column {wanted}. It has: {', '.join(frame.columns)}. "
            "Deliver the column, or name it as an alias in the contract"
        )
    several = {name: _texts(frame, found) for name, found in sources.items() if len(found) > 1}
    aligned = pl.DataFrame([_column(frame, name, found, several) for name, found in sources.items()])
    known = {source for found in sources.values() for source in found}
    unknown = sorted(set(frame.columns) - known)
    return split(frame, _conflicts(frame.height, several), aligned, {"unknown_columns": unknown})


def _texts(frame: pl.DataFrame, sources: list[str]) -> pl.DataFrame:
    """The columns as text, blank as null."""
    return pl.DataFrame([as_text(frame[source]) for source in sources]).with_columns(
        pl.when(pl.all().str.strip_chars() != "").then(pl.all())
    )


def _column(frame: pl.DataFrame, name: str, found: list[str], several: dict[str, pl.DataFrame]) -> pl.Series:
    if name in several:
        # text only where the types differ: a float must not be taken for the text that an id is
        alike = len({frame[source].dtype for source in found}) == 1 and frame[found[0]].dtype != pl.String
        return (frame if alike else several[name]).select(pl.coalesce(found)).to_series().rename(name)
    if found:
        return frame[found[0]].rename(name)
    return pl.Series(name, [None], dtype=pl.String).new_from_index(0, frame.height)


def _conflicts(height: int, several: dict[str, pl.DataFrame]) -> pl.DataFrame:
    marks = pl.DataFrame(schema={"reason": pl.String, "column": pl.String, "value": pl.String}).clear(height)
    for name, texts in several.items():
        trimmed = [pl.col(source).str.strip_chars() for source in texts.columns]
        differ = pl.any_horizontal((text != pl.coalesce(trimmed)).fill_null(False) for text in trimmed)
        said = pl.concat_str([pl.format(f"{source}={{}}", source) for source in texts.columns], separator=" ", ignore_nulls=True)
        found = texts.select(
            reason=pl.when(differ).then(pl.lit("alias_conflict")),
            column=pl.when(differ).then(pl.lit(name)),
            value=pl.when(differ).then(said),
        )
        marks = pl.select(
            pl.when(marks["reason"].is_null()).then(found[mark]).otherwise(marks[mark]).alias(mark) for mark in marks.columns
        )
    return marks
