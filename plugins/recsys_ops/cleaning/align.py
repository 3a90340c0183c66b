"""Names: a delivery's columns under their canonical names, values untouched."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from recsys_ops.cleaning.contract import ColumnRule, Contract, DecimalRule, TextRule
from recsys_ops.cleaning.json_columns import is_nested, listed, open_payloads
from recsys_ops.cleaning.parsing import INTEGER, as_text
from recsys_ops.cleaning.result import MARKS, Cleaned, is_member, original_columns
from recsys_ops.errors import ContractError

# more than any basket or list page: a row must not become a million
MAX_ITEMS = 1000


def align_schema(
    delivered: pl.LazyFrame, contract: Contract, broken: pl.Series | None = None
) -> Cleaned:
    """Give every column of the contract its canonical name.

    delivered : LazyFrame, (n_rows, any), as delivered. Memory grows with the rejected rows' numbers.
    broken : the places in the delivery of the rows to reject, if an earlier call has found them.
    Keeps ``row``, numbers in ascending order from 0, and exactly the contract's columns, in its order, types and values as
    delivered; rejected rows carry their place in the delivery as ``row``. Where a delivery has a column under several of its
    names, a row's first value that is not blank is taken, as text where their types differ. A column that may be absent and is,
    becomes nulls. A row whose ``item_id`` names several items becomes as many rows, alike in everything else.

    The first of these that a row shows is its reason: ``not_json`` (a payload column that is not a JSON object),
    ``not_a_value`` (a list or an object in place of one value, or a broken list), ``too_many_items`` (more than `MAX_ITEMS`),
    ``bad_id`` (an id that a float has lost, beside a name of another type), ``alias_conflict`` (two names whose values differ
    after trimming).

    The note ``unknown_columns`` lists the delivered columns that the contract does not name; they are dropped. The note ``split``
    lists the columns of which a row may have become several rows.
    Raises ContractError when a required column is absent under all its names, or a column holds no single values.
    """
    dtypes = delivered.collect_schema()
    if clash := [
        name
        for name in dtypes
        if name == " row" or name in {f"delivered_{own}" for own in ("row", *MARKS)}
    ]:
        raise ContractError(
            f"the delivery has the column {', '.join(clash)}, a name of our own: give it another in include/sql"
        )
    sources = {name: _sources(name, rule, dtypes) for name, rule in contract.columns.items()}
    if absent := [
        name for name, rule in contract.columns.items() if rule.required and not sources[name]
    ]:
        wanted = "; ".join(" or ".join((name, *contract.columns[name].aliases)) for name in absent)
        raise ContractError(
            f"the delivery lacks the required column {wanted}. It has: {', '.join(dtypes)}. "
            "Deliver the column, or name it as an alias in the contract"
        )
    paths = [source for found in sources.values() for source in found if source not in dtypes]
    opened, no_objects = open_payloads(delivered.with_row_index(" row"), paths)
    types = opened.collect_schema()
    aligned = {
        name: _align(name, sources[name], types, rule, paths)
        for name, rule in contract.columns.items()
    }
    faults = [
        _Fault("not_json", payload, is_none, as_text(payload, dtypes[payload]))
        for payload, is_none in no_objects.items()
    ]
    faults += [fault for column in aligned.values() for fault in column.faults]
    read = opened.with_columns(
        expr.alias(name) for column in aligned.values() for name, expr in column.made.items()
    )
    if broken is None:
        holds = pl.any_horizontal(False, *(fault.holds.fill_null(False) for fault in faults))
        broken = (
            read.select(" row", broken=holds).filter("broken").collect(engine="streaming")[" row"]
        )
    left_out = is_member(broken, " row")
    kept = read.filter(~left_out).select(
        pl.col(" row").alias("row"), *(c.value.alias(name) for name, c in aligned.items())
    )
    if several := [name for name, column in aligned.items() if column.split]:
        kept = kept.drop("row").explode(several).with_row_index("row")
    rejected = read.filter(left_out).select(
        *original_columns(dtypes.names(), ("row", *MARKS)),
        row=" row",
        reason=pl.coalesce(
            *(pl.when(fault.holds).then(pl.lit(fault.reason)) for fault in faults),
            pl.lit(None, pl.String),
        ),
        column=pl.coalesce(
            *(pl.when(fault.holds).then(pl.lit(fault.column)) for fault in faults),
            pl.lit(None, pl.String),
        ),
        value=pl.coalesce(
            *(pl.when(fault.holds).then(fault.value) for fault in faults), pl.lit(None, pl.String)
        ),
    )
    known = {
        source.partition(".")[0] if source in paths else source
        for found in sources.values()
        for source in found
    }
    return Cleaned(
        kept,
        rejected,
        {"unknown_columns": sorted(set(dtypes) - known), "split": several, **contract.metadata},
    )


@dataclass(frozen=True)
class _Fault:
    reason: str
    column: str
    holds: pl.Expr
    value: pl.Expr


@dataclass(frozen=True)
class _Column:
    """How a column of the contract comes about; `made` are columns that the others need. With `split`, a value is a list."""

    value: pl.Expr
    faults: list[_Fault] = field(default_factory=list)
    made: dict[str, pl.Expr] = field(default_factory=dict)
    split: bool = False


def _sources(name: str, rule: ColumnRule, dtypes: pl.Schema) -> list[str]:
    """The names of the column that the delivery has, columns and paths into one."""
    return [
        source
        for source in (name, *rule.aliases)
        if source in dtypes or ("." in source and source.partition(".")[0] in dtypes)
    ]


def _align(
    name: str, found: list[str], dtypes: pl.Schema, rule: ColumnRule, paths: list[str]
) -> _Column:
    if not found:
        return _Column(pl.lit(None, pl.String))
    texts = {source: as_text(source, dtypes[source]) for source in found}
    is_id = isinstance(rule, TextRule) and rule.type == "id"
    faults = [
        _Fault("not_a_value", name, texts[path].is_in(["true", "false"]), texts[path])
        for path in found
        if is_id and path in paths
    ]
    may_list = pl.String in {dtypes[source] for source in found}
    separator = rule.split if isinstance(rule, TextRule) and may_list else None
    if separator is None:
        faults += [
            _Fault("not_a_value", name, is_nested(texts[path]), texts[path])
            for path in found
            if path in paths
        ]
    if len(found) == 1 and separator is None:
        return _Column(pl.col(found[0]), faults)
    alike = len({dtypes[source] for source in found}) == 1 and dtypes[found[0]] != pl.String
    if is_id and not alike:
        faults += _lost(name, texts, dtypes)
    if separator is not None:
        return _items(name, texts, separator, faults)
    said = [pl.when(text.str.strip_chars() != "").then(text) for text in texts.values()]
    # most rows have the value under one name only, and of those nothing is compared
    several = pl.sum_horizontal(pl.col(found).is_not_null()) > 1
    made = {
        f" {source} meant": _plain(pl.when(several).then(text).str.strip_chars(), rule)
        for source, text in texts.items()
    }
    meant = [pl.when(pl.col(source) != "").then(source) for source in made]
    # text only where the types differ: a float must not be taken for the text that an id is
    return _Column(
        pl.coalesce(found if alike else said), [*faults, _conflict(name, texts, meant)], made
    )


def _items(name: str, texts: dict[str, pl.Expr], separator: str, faults: list[_Fault]) -> _Column:
    lists = {f" {source} items": listed(text, separator) for source, text in texts.items()}
    found = [pl.when(pl.col(items).list.len() > 0).then(items) for items in lists]
    for items, text in zip(found, texts.values(), strict=True):
        faults.append(
            _Fault("not_a_value", name, items.is_not_null() & items.list.first().is_null(), text)
        )
        faults.append(_Fault("too_many_items", name, items.list.len() > MAX_ITEMS, text))
    return _Column(pl.coalesce(found), [*faults, _conflict(name, texts, found)], lists, split=True)


def _lost(name: str, texts: dict[str, pl.Expr], dtypes: pl.Schema) -> list[_Fault]:
    """Floats that are no exact whole numbers: as text they would pass for ids."""
    floats = [text for source, text in texts.items() if dtypes[source].is_float()]
    return [_Fault("bad_id", name, ~text.str.contains(INTEGER), text) for text in floats]


def _plain(text: pl.Expr, rule: ColumnRule) -> pl.Expr:
    """What is compared: 19.90 and 19.9 are one price."""
    if isinstance(rule, DecimalRule):
        return (
            pl.when(text.str.contains(r"\.[0-9]+$"))
            .then(text.str.strip_chars_end("0").str.strip_suffix("."))
            .otherwise(text)
        )
    return text


def _conflict(name: str, texts: dict[str, pl.Expr], meant: Sequence[pl.Expr]) -> _Fault:
    said = [
        pl.format(f"{source}={{}}", pl.when(text.str.strip_chars() != "").then(text))
        for source, text in texts.items()
    ]
    return _Fault(
        "alias_conflict",
        name,
        pl.any_horizontal((one != pl.coalesce(meant)).fill_null(False) for one in meant),
        pl.concat_str(said, separator=" ", ignore_nulls=True),
    )
