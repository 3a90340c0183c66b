"""Names: gives a delivery's columns their canonical names; values do not change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from recsys_ops.cleaning.contract import ColumnRule, Contract, DecimalRule, TextRule
from recsys_ops.cleaning.json_columns import is_nested, listed, open_payloads
from recsys_ops.cleaning.parsing import INTEGER, as_text
from recsys_ops.cleaning.result import (
    REASON_COLUMNS,
    Cleaned,
    hidden_column,
    is_member,
    original_columns,
)
from recsys_ops.errors import ContractError

# more than any basket or list page; limits the rows that one row can become
MAX_ITEMS = 1000


_ROW = hidden_column("row")


def align_schema(
    delivered: pl.LazyFrame, contract: Contract, rejected: pl.Series | None = None
) -> Cleaned:
    """Give every column of the contract its canonical name.

    delivered : LazyFrame, (n_rows, any), as delivered. Memory grows with the indices of the
        rejected rows.
    rejected : the indices in the delivery of the rows to reject, if an earlier call has found them.

    Keeps ``row``, ascending indices from 0, and exactly the contract's columns, in its order, with
    types and values as delivered. Rejected rows have their index in the delivery as ``row``. If a
    delivery has a column under several of its names, the first value of a row that is not blank
    counts, as text where the types differ. An absent column that is not required becomes nulls. A
    row whose ``item_id`` names several items becomes one row for each item; the other columns are
    the same in all of them.

    The reason is the first of these that applies to a row: ``not_json`` (a payload column that is
    not a JSON object), ``not_a_value`` (a list or an object in place of one value, or a broken
    list), ``too_many_items`` (more than `MAX_ITEMS`), ``bad_id`` (a float that cannot be an id,
    beside a name of another type), ``alias_conflict`` (two names whose values differ after
    trimming).

    Notes: ``unknown_columns``, the delivered columns that the contract does not name and that are
    dropped; ``split``, the columns by which a row may have become several rows; and the contract's
    metadata.
    Raises ContractError when a required column is absent under all its names, or when a column
    does not hold single values.
    """
    dtypes = delivered.collect_schema()
    sources = {name: _sources(name, rule, dtypes) for name, rule in contract.columns.items()}
    _check_names(dtypes)
    _check_required(contract, sources, dtypes)
    paths = [source for names in sources.values() for source in names if source not in dtypes]
    opened, broken_payloads = open_payloads(delivered.with_row_index(_ROW), paths)
    types = opened.collect_schema()
    aligned = {
        name: _align(_Sources(name, rule, sources[name], types, paths))
        for name, rule in contract.columns.items()
    }
    faults = [
        _Fault("not_json", payload, is_broken, as_text(payload, dtypes[payload]))
        for payload, is_broken in broken_payloads.items()
    ]
    faults += [fault for column in aligned.values() for fault in column.faults]
    read = opened.with_columns(
        expr.alias(name) for column in aligned.values() for name, expr in column.hidden.items()
    )
    if rejected is None:
        rejected = _faulty_rows(read, faults)
    split = [name for name, column in aligned.items() if column.split]
    payloads = {path.partition(".")[0] for path in paths}
    known = payloads.union(*sources.values())
    notes: dict[str, object] = {
        "unknown_columns": sorted(set(dtypes) - known),
        "split": split,
        **contract.metadata,
    }
    is_rejected = is_member(rejected, _ROW)
    return Cleaned(
        _kept(read.filter(~is_rejected), aligned, split),
        _with_reasons(read.filter(is_rejected), dtypes.names(), faults),
        notes,
    )


@dataclass(frozen=True)
class _Fault:
    """A reason to reject a row: `holds` says for which rows, `value` is the text to show."""

    reason: str
    column: str
    holds: pl.Expr
    value: pl.Expr


@dataclass(frozen=True)
class _Column:
    """How a column of the contract is made.

    hidden : columns that `value` and `faults` need.
    split : whether a value is a list, each of whose elements gets a row.
    """

    value: pl.Expr
    faults: list[_Fault] = field(default_factory=list)
    hidden: dict[str, pl.Expr] = field(default_factory=dict)
    split: bool = False


@dataclass(frozen=True)
class _Sources:
    """The delivered columns and JSON paths that hold a column of the contract."""

    column: str
    rule: ColumnRule
    names: list[str]
    dtypes: pl.Schema
    paths: list[str]

    @property
    def texts(self) -> dict[str, pl.Expr]:
        return {name: as_text(name, self.dtypes[name]) for name in self.names}

    @property
    def is_id(self) -> bool:
        return isinstance(self.rule, TextRule) and self.rule.type == "id"

    @property
    def have_one_type(self) -> bool:
        """Whether the values can be merged without becoming text."""
        types = {self.dtypes[name] for name in self.names}
        return len(types) == 1 and pl.String not in types

    @property
    def separator(self) -> str | None:
        """What stands between several items in a text, if a row may name several."""
        is_text = any(self.dtypes[name] == pl.String for name in self.names)
        return self.rule.split if isinstance(self.rule, TextRule) and is_text else None


def _sources(name: str, rule: ColumnRule, dtypes: pl.Schema) -> list[str]:
    """The names of the column that the delivery has: columns, and paths into its columns."""
    return [
        source
        for source in (name, *rule.aliases)
        if source in dtypes or ("." in source and source.partition(".")[0] in dtypes)
    ]


def _check_names(dtypes: pl.Schema) -> None:
    reserved = {_ROW, *(f"delivered_{name}" for name in ("row", *REASON_COLUMNS))}
    if clash := [name for name in dtypes if name in reserved]:
        raise ContractError(
            f"the delivery has the column {', '.join(clash)}, a name of our own: "
            "give it another in include/sql"
        )


def _check_required(
    contract: Contract, sources: Mapping[str, list[str]], dtypes: pl.Schema
) -> None:
    absent = [
        " or ".join((name, *rule.aliases))
        for name, rule in contract.columns.items()
        if rule.required and not sources[name]
    ]
    if absent:
        raise ContractError(
            f"the delivery lacks the required column {'; '.join(absent)}. "
            f"It has: {', '.join(dtypes)}. "
            "Deliver the column, or name it as an alias in the contract"
        )


def _align(sources: _Sources) -> _Column:
    if not sources.names:
        return _absent()
    if sources.separator is not None:
        return _from_lists(sources, sources.separator)
    if len(sources.names) == 1:
        return _from_one_source(sources)
    return _from_aliases(sources)


def _absent() -> _Column:
    return _Column(pl.lit(None, pl.String))


def _from_one_source(sources: _Sources) -> _Column:
    faults = _booleans(sources) + _nested(sources)
    return _Column(pl.col(sources.names[0]), faults)


def _from_lists(sources: _Sources, separator: str) -> _Column:
    """A column whose texts may name several items: every value becomes a list."""
    texts = sources.texts
    lists = {
        hidden_column(f"{name} items"): listed(text, separator) for name, text in texts.items()
    }
    filled = [pl.when(pl.col(items).list.len() > 0).then(items) for items in lists]
    faults = _booleans(sources) + _lost_ids(sources)
    for items, text in zip(filled, texts.values(), strict=True):
        is_broken = items.is_not_null() & items.list.first().is_null()
        faults.append(_Fault("not_a_value", sources.column, is_broken, text))
        too_many = items.list.len() > MAX_ITEMS
        faults.append(_Fault("too_many_items", sources.column, too_many, text))
    faults.append(_conflict(sources, filled))
    return _Column(pl.coalesce(filled), faults, lists, split=True)


def _from_aliases(sources: _Sources) -> _Column:
    """A column under several names; a row must not have different values under them."""
    texts = sources.texts
    not_blank = [pl.when(text.str.strip_chars() != "").then(text) for text in texts.values()]
    # most rows have a value under one name only: nothing is compared in them
    have_several = pl.sum_horizontal(pl.col(sources.names).is_not_null()) > 1
    compared = {
        hidden_column(f"{name} compared"): _comparable(
            pl.when(have_several).then(text).str.strip_chars(), sources.rule
        )
        for name, text in texts.items()
    }
    filled = [pl.when(pl.col(name) != "").then(name) for name in compared]
    faults = [*_booleans(sources), *_nested(sources), *_lost_ids(sources)]
    faults.append(_conflict(sources, filled))
    # text only where the types differ: a float must not be taken for the text that an id is
    value = pl.coalesce(sources.names if sources.have_one_type else not_blank)
    return _Column(value, faults, compared)


def _booleans(sources: _Sources) -> list[_Fault]:
    """JSON's true and false in place of an id."""
    return [
        _Fault("not_a_value", sources.column, text.is_in(["true", "false"]), text)
        for name, text in sources.texts.items()
        if sources.is_id and name in sources.paths
    ]


def _nested(sources: _Sources) -> list[_Fault]:
    """A JSON list or object in place of one value."""
    return [
        _Fault("not_a_value", sources.column, is_nested(text), text)
        for name, text in sources.texts.items()
        if name in sources.paths
    ]


def _lost_ids(sources: _Sources) -> list[_Fault]:
    """Floats that are no exact whole numbers: as text they would pass for ids."""
    if not sources.is_id or sources.have_one_type:
        return []
    return [
        _Fault("bad_id", sources.column, ~text.str.contains(INTEGER), text)
        for name, text in sources.texts.items()
        if sources.dtypes[name].is_float()
    ]


def _conflict(sources: _Sources, values: Sequence[pl.Expr]) -> _Fault:
    """Two names of a column with different values in a row."""
    shown = [
        pl.format(f"{name}={{}}", pl.when(text.str.strip_chars() != "").then(text))
        for name, text in sources.texts.items()
    ]
    first = pl.coalesce(values)
    return _Fault(
        "alias_conflict",
        sources.column,
        pl.any_horizontal((value != first).fill_null(False) for value in values),
        pl.concat_str(shown, separator=" ", ignore_nulls=True),
    )


def _comparable(text: pl.Expr, rule: ColumnRule) -> pl.Expr:
    """A text in the form in which aliases are compared: 19.90 and 19.9 are one price."""
    if isinstance(rule, DecimalRule):
        return (
            pl.when(text.str.contains(r"\.[0-9]+$"))
            .then(text.str.strip_chars_end("0").str.strip_suffix("."))
            .otherwise(text)
        )
    return text


def _faulty_rows(read: pl.LazyFrame, faults: list[_Fault]) -> pl.Series:
    has_fault = pl.any_horizontal(False, *(fault.holds.fill_null(False) for fault in faults))
    return (
        read.select(_ROW, has_fault=has_fault).filter("has_fault").collect(engine="streaming")[_ROW]
    )


def _kept(rows: pl.LazyFrame, aligned: Mapping[str, _Column], split: list[str]) -> pl.LazyFrame:
    kept = rows.select(
        pl.col(_ROW).alias("row"), *(column.value.alias(name) for name, column in aligned.items())
    )
    return kept.drop("row").explode(split).with_row_index("row") if split else kept


def _with_reasons(rows: pl.LazyFrame, columns: Sequence[str], faults: list[_Fault]) -> pl.LazyFrame:
    def first(values: Sequence[pl.Expr]) -> pl.Expr:
        chosen = (
            pl.when(fault.holds).then(value) for fault, value in zip(faults, values, strict=True)
        )
        return pl.coalesce(*chosen, pl.lit(None, pl.String))

    return rows.select(
        *original_columns(columns, ("row", *REASON_COLUMNS)),
        row=_ROW,
        reason=first([pl.lit(fault.reason) for fault in faults]),
        column=first([pl.lit(fault.column) for fault in faults]),
        value=first([fault.value for fault in faults]),
    )
