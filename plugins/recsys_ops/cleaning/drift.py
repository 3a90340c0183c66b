"""Drift: how the columns of a delivery differ from those of an earlier one."""

import polars as pl

from recsys_ops.cleaning.align import delivered_names
from recsys_ops.cleaning.contract import FILTER_INPUTS, Contract


def drift(today: pl.Schema, before: pl.Schema) -> dict[str, object]:
    """The new, missing and retyped columns; an empty dict if there are none.

    today, before : names and types of the delivered columns.
    Returns ``new`` and ``missing``, sorted names, and ``retyped``, name → ``"Int64 → String"``. A
    key without columns is left out. A column without values (type Null) cannot be retyped.
    """
    retyped = {
        name: f"{before[name]} → {today[name]}"
        for name in sorted(set(today) & set(before))
        if today[name] != before[name] and pl.Null not in (today[name], before[name])
    }
    changes = {
        "new": sorted(set(today) - set(before)),
        "missing": sorted(set(before) - set(today)),
        "retyped": retyped,
    }
    return {change: columns for change, columns in changes.items() if columns}


def absent_filter_inputs(today: pl.Schema, contract: Contract) -> set[str]:
    """The columns of the filters that a delivery lacks though the contract does not say so."""
    return {
        name
        for name in FILTER_INPUTS
        if not contract.columns[name].gone
        and not delivered_names(name, contract.columns[name], today)
    }
