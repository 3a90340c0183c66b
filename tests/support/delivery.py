"""A delivery of raw rows, typed by hand."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from recsys_ops.ingest.deliveries import write_delivery
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage.objects import Storage

DAY = date(2026, 3, 2)


SETTINGS = CleaningSettings.model_validate({"staff": {"email_domains": ["shop.example"]}})


GOOD = {
    "recorded_at": datetime(2026, 3, 2, 12, tzinfo=UTC),
    "event_time": "2026-03-02T11:59:58Z",
    "user_id": "u1",
    "product_id": "p1",
    "action": "view",
    "quantity": "1",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "email": "anna@customer.example",
}


def deliver(
    storage: Storage, rows: list[dict[str, Any]], day: date = DAY, without: tuple[str, ...] = ()
) -> None:
    """Deliver rows that are like `GOOD`, without some of its columns."""
    frame = pl.DataFrame(
        [
            {"row_id": str(i), "event_id": f"e{i}", "customer_ref": None} | GOOD | row
            for i, row in enumerate(rows)
        ]
    ).drop(without)
    write_delivery(storage, day, frame.lazy(), {day: frame.height}, "test")
