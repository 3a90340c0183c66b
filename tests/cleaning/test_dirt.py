"""The catalogue of dirt in tests/data/dirt: each row ends in the step that it names."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from support.cleaning_rows import CONTRACT_FILE, Collected, collected

from recsys_ops.cleaning import (
    Contract,
    align_schema,
    deduplicate,
    filter_crawlers,
    filter_staff,
    fix_types,
)
from recsys_ops.settings import CrawlerSettings, StaffSettings

CATALOGUE = Path(__file__).parents[1] / "data" / "dirt"
GOOD: dict[str, Any] = {
    "recorded_at": "2026-03-02T12:00:00Z",
    "customer_ref": None,
    "product_id": "p1",
    "sku": None,
    "action": "view",
    "event_time": "2026-03-02T11:59:58Z",
    "quantity": "1",
    "price": "19.90",
    "user_agent": "Firefox",
    "ip": "192.0.2.1",
    "email": "a@b.example",
    "role": "customer",
    "info": None,
}
# the columns that a delivery may lack
OPTIONAL = ("customer_ref", "sku", "info")
ALIASES = {"user_id": ["customer_ref", "info.user.id"], "value": ["price", "info.value"]}
STAFF = StaffSettings(
    user_ids=("boss",),
    roles=("admin",),
    email_domains=("shop.example",),
    networks=["203.0.113.0/24", "2001:db8::/32"],  # type: ignore[arg-type]
    test_account_pattern=r"^test\+",
)
STEPS: dict[str, Callable[[pl.LazyFrame, Contract], Any]] = {
    "align_schema": align_schema,
    "fix_types": fix_types,
    "deduplicate": lambda events, _: deduplicate(events),
    "filter_crawlers": lambda events, _: filter_crawlers(events, CrawlerSettings()),
    "filter_staff": lambda events, _: filter_staff(events, STAFF),
}
Steps = dict[str, Collected]


def catalogue(name: str) -> list[dict[str, Any]]:
    lines = (CATALOGUE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line, object_hook=_written_out) for line in lines]


def _written_out(value: dict[str, Any]) -> Any:
    """A text that is too long for the file is stored as its repeated part."""
    return (
        value["before"] + value["repeat"] * value["times"] + value["after"]
        if "repeat" in value
        else value
    )


def _delivery(entry: dict[str, Any]) -> str:
    return json.dumps([entry.get("types", {}), entry.get("contract", {})], sort_keys=True)


def _contract(changes: dict[str, dict[str, Any]]) -> Contract:
    document = yaml.safe_load(CONTRACT_FILE.read_text())
    for column, keys in changes.items():
        document["columns"][column] |= keys
    for column, aliases in ALIASES.items():
        document["columns"][column]["aliases"] = aliases
    return Contract.model_validate(document)


def _frame(rows: list[dict[str, Any]], types: dict[str, str]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String))
    typed = frame.with_columns(_typed(column, written) for column, written in types.items())
    return typed.drop(column for column in OPTIONAL if typed[column].is_null().all())


def _typed(column: str, written: str) -> pl.Expr:
    name, _, parameters = written.rstrip(")").partition("(")
    arguments = parameters.split(",") if parameters else []
    if name == "Datetime":
        return pl.col(column).str.to_datetime(
            time_unit=arguments[0], time_zone=dict(enumerate(arguments)).get(1)
        )  # type: ignore[arg-type]
    if name == "Boolean":
        return pl.col(column) == "true"
    if name == "Date":
        return pl.col(column).str.to_date()
    return pl.col(column).cast(getattr(pl, name)(*map(int, arguments)))


def _clean(rows: list[dict[str, Any]], entry: dict[str, Any]) -> Steps:
    """Clean the rows of a delivery; asserts that each step keeps or rejects every row."""
    contract, rest = _contract(entry.get("contract", {})), _frame(rows, entry.get("types", {}))
    ends: Steps = {}
    for step, function in STEPS.items():
        ends[step] = cleaned = collected(function(rest.lazy(), contract))
        # one delivered row may have become several
        key = "row_id" if step == "align_schema" else "row"
        kept, rejected = cleaned.kept[key].unique(), cleaned.rejected[key]
        assert sorted([*kept, *rejected]) == sorted(rest[key])
        assert cleaned.kept["row"].is_unique().all()
        rest = cleaned.kept
    return ends


@pytest.fixture(scope="module")
def cleaned() -> dict[str, Steps]:
    """Every delivery of the catalogue, cleaned: one for each set of types and contract."""
    entries = [
        (f"{name} {i}", entry)
        for name in ("rejected", "kept")
        for i, entry in enumerate(catalogue(name))
    ]
    deliveries: dict[str, Steps] = {}
    for delivery, group in groupby(
        sorted(entries, key=lambda named: _delivery(named[1])),
        key=lambda named: _delivery(named[1]),
    ):
        named = list(group)
        rows = [row for row_id, entry in named for row in _rows(row_id, entry)]
        deliveries[delivery] = _clean(rows, named[0][1])
    return deliveries


def _rows(row_id: str, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for suffix, changes in [
        ("", entry["row"]),
        *((f" also {i}", also) for i, also in enumerate(entry.get("also", []))),
    ]:
        own = {"row_id": row_id + suffix, "event_id": f"e {row_id}", "user_id": f"u {row_id}"}
        if "user_id" in entry.get("types", {}):
            own["user_id"] = "1"
        yield own | GOOD | changes


@pytest.mark.parametrize(
    ("number", "entry"), enumerate(catalogue("rejected")), ids=lambda value: _id(value)
)
def test_dirty_row_is_quarantined_where_the_catalogue_says(
    cleaned: dict[str, Steps], number: int, entry: dict[str, Any]
) -> None:
    steps = cleaned[_delivery(entry)]
    ends = [
        (step, *verdict)
        for step, frames in steps.items()
        for verdict in frames.rejected.filter(pl.col("row_id") == f"rejected {number}")
        .select("reason", "column", "value")
        .rows()
    ]
    assert {end[:3] for end in ends} == {(entry["step"], entry["reason"], entry["column"])}
    others = steps["filter_staff"].kept.filter(
        pl.col("row_id").str.starts_with(f"rejected {number} also")
    )
    assert others.height == len(entry.get("also", []))
    delivered = entry["row"].get(entry["column"]) or ""
    if delivered.strip() and "types" not in entry and entry["reason"] != "alias_conflict":
        # after fix_types a value is trimmed
        assert [value for *_, value in ends] == [
            delivered.strip() if entry["step"].startswith("filter") else delivered
        ]


@pytest.mark.parametrize(
    ("number", "entry"), enumerate(catalogue("kept")), ids=lambda value: _id(value)
)
def test_ugly_but_good_row_is_kept_with_the_value_that_was_meant(
    cleaned: dict[str, Steps], number: int, entry: dict[str, Any]
) -> None:
    last = cleaned[_delivery(entry)]["filter_staff"].kept.filter(
        pl.col("row_id") == f"kept {number}"
    )
    for column, value in entry["becomes"].items():
        values = value if isinstance(value, list) else [value]
        meant = (
            [datetime.fromisoformat(v).astimezone(UTC) for v in values]
            if column == "event_time"
            else values
        )
        assert last[column].to_list() == meant


def _id(value: Any) -> str:
    return value["what"] if isinstance(value, dict) else ""
