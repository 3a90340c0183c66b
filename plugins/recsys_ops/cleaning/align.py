"""Names: gives a delivery's columns their canonical names; values do not change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from recsys_ops.cleaning.contract import ColumnRule, Contract, DecimalRule, TextRule
from recsys_ops.cleaning.json_columns import (
    elements_of,
    is_nested,
    listed,
    objects,
    open_payloads,
)
from recsys_ops.cleaning.parsing import INTEGER, INVISIBLE, as_text, is_no_value
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
# between the parts of a composite id; a backslash stands before it and before a backslash in a part
SEPARATOR = "|"

_ROW = hidden_column("row")


def align_schema(
    delivered: pl.LazyFrame, contract: Contract, rejected: pl.Series | None = None
) -> Cleaned:
    """Give every column of the contract its canonical name.

    delivered : LazyFrame, (n_rows, any), as delivered. Memory grows with the indices of the
        rejected rows, and where the contract names a list of objects with these rows.
    rejected : the indices in the delivery of the rows to reject, if an earlier call has found them.

    Keeps ``row``, ascending indices from 0, and exactly the contract's columns, in its order, with
    types and values as delivered. Rejected rows have their index in the delivery as ``row``. If a
    delivery has a column under several of its names, the first value of a row that is not blank
    counts, as text where the types differ; with `first_of`, the first that can be an id. A
    composite id is the text of its parts with `SEPARATOR` between them, null if a part is blank.
    An absent column that is not required becomes nulls. A row whose ``item_id`` names several
    items, or that has a list of objects, becomes one row for each of them; the columns that are
    not read in the objects are the same in all of them.

    The reason is the first of these that applies to a row: ``not_json`` (a payload column or an
    element of the list that is not a JSON object), ``not_a_value`` (a list or an object in place of
    one value, or a broken list), ``too_many_items`` (more than `MAX_ITEMS`), ``bad_id`` (a float
    that cannot be an id, beside a name of another type), ``alias_conflict`` (two names whose values
    differ after trimming). One such element rejects the row with its whole list.

    Notes: ``unknown_columns``, the delivered columns that the contract does not name and that are
    dropped; ``split``, the columns and lists by which a row may have become several rows; and the
    contract's metadata.
    Raises ContractError when a required column is absent under all its names, or when a column
    does not hold single values.
    """
    dtypes = delivered.collect_schema()
    sources = {name: delivered_names(name, rule, dtypes) for name, rule in contract.columns.items()}
    _check_names(dtypes)
    _check_required(contract, sources, dtypes)
    named = dict.fromkeys(source for names in sources.values() for source in names)
    paths = [source for source in named if source not in dtypes]
    item_list = contract.item_list if any("[]." in path for path in paths) else None
    opened, faults = _open(delivered.with_row_index(_ROW), paths, item_list)
    types = opened.collect_schema()
    aligned = {
        name: _align(_Sources(name, rule, sources[name], types, paths))
        for name, rule in contract.columns.items()
    }
    faults += [fault for column in aligned.values() for fault in column.faults]
    read = opened.with_columns(
        expr.alias(name) for column in aligned.values() for name, expr in column.hidden.items()
    )
    if rejected is None:
        rejected = _faulty_rows(read, faults)
    split = [name for name, column in aligned.items() if column.split]
    known = {_delivered_column(source, dtypes) for source in named}
    notes: dict[str, object] = {
        "unknown_columns": sorted(set(dtypes) - known),
        "split": split + ([item_list] if item_list else []),
        **contract.metadata,
    }
    is_rejected = is_member(rejected, _ROW)
    refused = read.filter(is_rejected)
    if item_list:  # of a row's elements, the first at fault says why
        refused = refused.filter(_has_fault(faults)).unique(_ROW, keep="first", maintain_order=True)
    return Cleaned(
        _kept(read.filter(~is_rejected), aligned, split, renumbered=bool(split or item_list)),
        _with_reasons(refused, dtypes.names(), faults),
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

    def is_unfit(self, text: pl.Expr) -> pl.Expr:
        """Whether a trimmed text cannot be an id, if the column is one."""
        if not (isinstance(self.rule, TextRule) and self.rule.type == "id"):
            return pl.lit(False)
        return text.str.contains(INVISIBLE) | is_no_value(self.column, text, self.rule)

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


def delivered_names(name: str, rule: ColumnRule, dtypes: pl.Schema) -> list[str]:
    """The sources of the column that the delivery has; none if it lacks a part of an id."""
    delivered = [
        source for source in rule.sources(name) if _delivered_column(source, dtypes) is not None
    ]
    return [] if rule.concat and len(delivered) < len(rule.concat) else delivered


def _delivered_column(source: str, dtypes: pl.Schema) -> str | None:
    """The column of this name, or else the one into which the path leads."""
    item_list = source.partition("[].")[0]
    columns = (source, item_list, item_list.partition(".")[0])
    return next((column for column in columns if column in dtypes), None)


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
        (" and " if rule.concat else " or ").join(rule.sources(name))
        for name, rule in contract.columns.items()
        if rule.required and not sources[name]
    ]
    if absent:
        raise ContractError(
            f"the delivery lacks the required column {'; '.join(absent)}. "
            f"It has: {', '.join(dtypes)}. "
            "Deliver the column, or name it as an alias in the contract"
        )


def _open(
    delivered: pl.LazyFrame, paths: Sequence[str], item_list: str | None
) -> tuple[pl.LazyFrame, list[_Fault]]:
    """Read the paths; with a list of objects, make a row of every element first."""
    dtypes = delivered.collect_schema()
    in_list = [path for path in paths if "[]." in path]
    outside = [path for path in paths if "[]." not in path]
    if item_list and item_list not in dtypes:
        outside.append(item_list)
    opened, broken = open_payloads(delivered, outside)
    faults = [
        _Fault("not_json", payload, is_broken, as_text(payload, dtypes[payload]))
        for payload, is_broken in broken.items()
    ]
    if item_list is None:
        return opened, faults
    element, dtype = elements_of(item_list), opened.collect_schema()[item_list]
    typed = dtype.inner if isinstance(dtype, pl.List) else None
    if isinstance(typed, pl.Struct):
        elements, is_broken, written = pl.col(item_list), pl.lit(False), pl.lit(None, pl.String)
    else:
        written = as_text(item_list, dtype)
        elements, is_broken = objects(written)
    is_wrong = {
        reason: hidden_column(f"{item_list} {reason}")
        for reason in ("not_a_value", "too_many_items")
    }
    # an empty list would lose its row
    usable = ~pl.any_horizontal(is_wrong.values()) & (pl.col(element).list.len() > 0)
    exploded = (
        opened.with_columns(elements.alias(element), is_broken.alias(is_wrong["not_a_value"]))
        .with_columns((pl.col(element).list.len() > MAX_ITEMS).alias(is_wrong["too_many_items"]))
        .with_columns(pl.when(usable).then(element).alias(element))
        .explode(element)
    )
    if isinstance(typed, pl.Struct):
        read = exploded.with_columns(_field(element, typed, path).alias(path) for path in in_list)
    else:
        read, broken = open_payloads(exploded, in_list)
        faults += [
            _Fault("not_json", item_list, is_it, pl.col(element)) for is_it in broken.values()
        ]
    return read, [
        *faults,
        *(_Fault(reason, item_list, pl.col(name), written) for reason, name in is_wrong.items()),
    ]


def _field(element: str, dtype: pl.Struct, path: str) -> pl.Expr:
    """A value in a typed element; null if it has no such field."""
    value, fields = pl.col(element), dtype
    for key in path.partition("[].")[2].split("."):
        of_key = [field for field in getattr(fields, "fields", ()) if field.name == key]
        if not of_key:
            return pl.lit(None, pl.String)
        value, fields = value.struct.field(key), of_key[0].dtype
    return value


def _align(sources: _Sources) -> _Column:
    if not sources.names:
        return _absent()
    if sources.rule.concat:
        return _from_parts(sources)
    if sources.separator is not None:
        return _from_lists(sources, sources.separator)
    if len(sources.names) == 1:
        return _from_one_source(sources)
    if sources.rule.first_of:
        return _from_preferences(sources)
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
    if not sources.rule.first_of:
        faults.append(_conflict(sources, filled))
    return _Column(pl.coalesce(filled), faults, lists, split=True)


def _from_preferences(sources: _Sources) -> _Column:
    """The first source that is not blank and, for an id, can be one."""
    texts = sources.texts
    values = [pl.col(name) if sources.have_one_type else texts[name] for name in sources.names]
    trimmed = [text.str.strip_chars() for text in texts.values()]
    chosen = [
        pl.when((text != "") & ~sources.is_unfit(text)).then(value)
        for text, value in zip(trimmed, values, strict=True)
    ]
    faults = [*_booleans(sources), *_nested(sources), *_lost_ids(sources)]
    # what no source can serve is left for `fix_types` to reject
    return _Column(pl.coalesce(*chosen, *values), faults)


def _from_parts(sources: _Sources) -> _Column:
    """A composite id. Two different rows of parts never have the same text."""
    texts = [text.str.strip_chars() for text in sources.texts.values()]
    parts = [pl.when(text != "").then(text) for text in texts]
    escaped = [part.str.replace_all(r"([|\\])", r"\$1") for part in parts]
    # a part that is no id is the value itself, so that `fix_types` rejects it as any other id
    no_id = [pl.when(sources.is_unfit(part)).then(part) for part in parts]
    value = pl.coalesce(*no_id, pl.concat_str(escaped, separator=SEPARATOR))
    return _Column(value, [*_booleans(sources), *_nested(sources), *_lost_ids(sources)])


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
    return (
        read.select(_ROW, has_fault=_has_fault(faults))
        .filter("has_fault")
        .collect(engine="streaming")[_ROW]
    )


def _has_fault(faults: list[_Fault]) -> pl.Expr:
    return pl.any_horizontal(False, *(fault.holds.fill_null(False) for fault in faults))


def _kept(
    rows: pl.LazyFrame, aligned: Mapping[str, _Column], split: list[str], *, renumbered: bool
) -> pl.LazyFrame:
    kept = rows.select(
        pl.col(_ROW).alias("row"), *(column.value.alias(name) for name, column in aligned.items())
    )
    exploded = kept.explode(split) if split else kept
    return exploded.drop("row").with_row_index("row") if renumbered else exploded


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
