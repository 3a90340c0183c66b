"""One row for each event and item: the one recorded last."""

from datetime import timedelta
from typing import Any

import polars as pl
from support.cleaning_rows import RECORDED, events

from recsys_ops.cleaning import deduplicate
from recsys_ops.cleaning.contract import SCHEMA


def deduplicated(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    cleaned = deduplicate(rows.select(list(SCHEMA)).with_row_index("row").lazy())
    return cleaned.kept.collect(), cleaned.rejected.collect()


def test_basket_keeps_all_its_items() -> None:
    kept, rejected = deduplicated(
        events(*({"event_id": "b1", "item_id": f"p{i}"} for i in range(3)))
    )
    assert kept["item_id"].to_list() == ["p0", "p1", "p2"]
    assert rejected.is_empty()


def test_same_row_twice_is_a_duplicate_and_a_corrected_one_is_superseded() -> None:
    later = RECORDED + timedelta(minutes=5)
    kept, rejected = deduplicated(
        events(
            {"event_id": "a", "row_id": "10"},
            {"event_id": "b", "row_id": "3", "quantity": 7, "recorded_at": later},
            {"event_id": "a", "row_id": "9"},
            {"event_id": "b", "row_id": "4", "quantity": 2},
            {"event_id": "c", "row_id": "5"},
        )
    )
    assert kept.select("event_id", "row_id", "quantity").rows() == [
        ("a", "10", 1),
        ("b", "3", 7),
        ("c", "5", 1),
    ]
    assert rejected.select("row_id", "reason", "column", "value").rows() == [
        ("9", "duplicate", "event_id", "a"),
        ("4", "superseded", "event_id", "b"),
    ]


def test_order_of_delivery_does_not_change_which_row_wins() -> None:
    rows: list[dict[str, Any]] = [
        {"event_id": "a", "row_id": str(i), "quantity": i + 1} for i in range(12)
    ]
    frame = events(*rows)
    for seed in range(3):
        kept, rejected = deduplicated(frame.sample(fraction=1, shuffle=True, seed=seed))
        assert kept["row_id"].to_list() == ["11"]
        assert rejected.height == 11


def test_an_empty_day_keeps_its_columns() -> None:
    kept, rejected = deduplicated(events())
    assert kept.schema == {"row": pl.UInt32, **SCHEMA}
    assert rejected.is_empty()
