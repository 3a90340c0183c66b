"""Rows typed by hand, and the cleaning steps read into memory."""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys_ops.cleaning import Cleaned, Contract, align_schema, fix_types
from recsys_ops.cleaning.contract import SCHEMA


def _with_payloads() -> Path:
    """The shipped contract, with the lines of its comment about clients that send JSON."""
    text = (Path(__file__).parents[2] / "include" / "contract.yaml").read_text()
    shown = '{type: id, aliases: [product_id, sku, info.product_id, info.content_ids], split: ","}'
    plain = "item_id: {type: id, aliases: [product_id, sku]}"
    assert text.count(shown) == text.count(plain) == 1
    path = Path(tempfile.mkdtemp(prefix="recsys-tests-")) / "contract.yaml"
    path.write_text(text.replace(plain, f"item_id: {shown}"))
    return path


CONTRACT_FILE = _with_payloads()


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


def aligned(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows as `align_schema` returns them: `ROW` with other values, ids of events and rows."""
    numbered = [ROW | {"row_id": str(i), "event_id": f"e{i}"} | row for i, row in enumerate(rows)]
    return pl.DataFrame(
        numbered, schema={name: None if name == "recorded_at" else pl.String for name in ROW}
    )


def events(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of the canonical event frame."""
    typed: dict[str, Any] = {"event_time": RECORDED, "quantity": 1, "value": 19.9}
    return pl.DataFrame(
        [ROW | typed | {"event_id": f"e{i}"} | row for i, row in enumerate(rows)], schema=SCHEMA
    )


@dataclass(frozen=True)
class Collected:
    """The result of a step, read into memory."""

    kept: pl.DataFrame
    rejected: pl.DataFrame
    notes: dict[str, object]
    ignored: pl.DataFrame


def collected(cleaned: Cleaned) -> Collected:
    return Collected(
        cleaned.kept.collect(engine="streaming"),
        cleaned.rejected.collect(engine="streaming"),
        cleaned.notes,
        pl.DataFrame({"row": []}) if cleaned.ignored is None else cleaned.ignored.collect(),
    )


def align(delivered: pl.DataFrame, contract: Contract) -> Collected:
    """Run `align_schema`; checks that every delivered row is kept or rejected."""
    cleaned = collected(align_schema(delivered.lazy(), contract))
    assert sorted([*cleaned.kept["row_id"].unique(), *cleaned.rejected["row_id"]]) == sorted(
        delivered["row_id"]
    )
    assert cleaned.kept["row"].is_sorted()
    assert cleaned.kept["row"].is_unique().all()
    return cleaned


def fix(frame: pl.DataFrame, contract: Contract) -> Collected:
    """Run `fix_types`; checks that every row is kept, rejected or ignored, in its old order."""
    numbered = frame if "row" in frame.columns else frame.with_row_index("row")
    cleaned = collected(fix_types(numbered.lazy(), contract))
    assert cleaned.kept["row"].is_sorted()
    assert cleaned.rejected["row"].is_sorted()
    rows = [*cleaned.kept["row"], *cleaned.rejected["row"], *cleaned.ignored["row"]]
    assert sorted(rows) == numbered["row"].to_list()
    return cleaned


def fixed(column: str, values: list[Any] | pl.Series, contract: Contract) -> Collected:
    """Run `fix_types` on rows that differ in one column."""
    series = values if isinstance(values, pl.Series) else pl.Series(values, dtype=pl.String)
    return fix(
        aligned(*({} for _ in range(len(series)))).with_columns(series.alias(column)), contract
    )


def verdicts(cleaned: Collected) -> list[tuple[str, str | None, str | None]]:
    return cleaned.rejected.select("reason", "column", "value").rows()
