"""The shipped contract, and rows typed by hand."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from recsys_ops.cleaning import Cleaned, Contract, fix_types, load_contract
from recsys_ops.cleaning.contract import SCHEMA

SHIPPED = Path(__file__).parents[2] / "include" / "contract.yaml"
RECORDED = datetime(2026, 3, 2, 12, tzinfo=UTC)
ROW: dict[str, Any] = {
    "row_id": "1",
    "recorded_at": RECORDED,
    "event_id": "e1",
    "user_id": "u1",
    "item_id": "p1",
    "event_type": "view",
    "event_time": "2026-03-02T11:59:58Z",
    "quantity": "1",
    "value": "19.90",
    "user_agent": "Firefox",
    "ip": "192.0.2.1",
    "email": "a@b.example",
    "role": "customer",
}


@pytest.fixture(scope="session")
def contract() -> Contract:
    return load_contract(SHIPPED)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Contract]:
    """The shipped contract with other keys for some columns: ``changed(event_time={"timezone": "Europe/Berlin"})``."""

    def change(**columns: dict[str, Any]) -> Contract:
        document = yaml.safe_load(SHIPPED.read_text())
        for name, keys in columns.items():
            document["columns"][name] |= keys
        path = tmp_path / "contract.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_contract(path)

    return change


def aligned(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows as `align_schema` leaves them: `ROW` with the given values instead, each with an event id and row id of its own."""
    numbered = [ROW | {"row_id": str(i), "event_id": f"e{i}"} | row for i, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema={name: None if name == "recorded_at" else pl.String for name in ROW})


def events(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of the canonical event frame."""
    typed: dict[str, Any] = {"event_time": RECORDED, "quantity": 1, "value": 19.9}
    return pl.DataFrame([ROW | typed | {"event_id": f"e{i}"} | row for i, row in enumerate(rows)], schema=SCHEMA)


def fixed(column: str, values: list[Any] | pl.Series, contract: Contract) -> Cleaned:
    """`fix_types` over rows that differ in one column."""
    series = values if isinstance(values, pl.Series) else pl.Series(values, dtype=pl.String)
    frame = aligned(*({} for _ in range(len(series)))).with_columns(series.alias(column))
    cleaned = fix_types(frame, contract)
    assert cleaned.kept.height + cleaned.rejected.height == frame.height
    return cleaned


def verdicts(cleaned: Cleaned) -> list[tuple[str, str | None, str | None]]:
    return cleaned.rejected.select("reason", "column", "value").rows()
