"""Drift: how the columns of a delivery differ from an earlier one's."""

import polars as pl


def drift(today: pl.Schema, before: pl.Schema) -> dict[str, object]:
    """The columns that came, went and changed their type; an empty dict where nothing did.

    today, before : names and types of the delivered columns.
    Returns ``new`` and ``missing``, sorted names, and ``retyped``, name → ``"Int64 → String"``; a key only where it has something
    to say. A column without any value (type Null) has no type to change.
    """
    retyped = {
        name: f"{before[name]} → {today[name]}"
        for name in sorted(set(today) & set(before))
        if today[name] != before[name] and pl.Null not in (today[name], before[name])
    }
    found = {
        "new": sorted(set(today) - set(before)),
        "missing": sorted(set(before) - set(today)),
        "retyped": retyped,
    }
    return {kind: names for kind, names in found.items() if names}
