"""Extract the catalogue: the shop's items with title, category, price and stock."""

import logging
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import literal

from recsys_ops.connections import database_url, open_storage
from recsys_ops.operators.base import DayOperator, accept_reason
from recsys_ops.settings import Settings, include_dir
from recsys_ops.source.sql import read_sql

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ExtractCatalogueOperator(DayOperator):
    """Store the catalogue, as it is now, as that of the day.

    Refused when it lacks too many of the items that the last one had, unless the trigger form has
    an `accept_reason`.
    """

    template_fields: Sequence[str] = ("day", "sql")
    template_fields_renderers = {"sql": "sql"}

    def __init__(self, *, sql: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # shown in the UI as a template field, but no template: Jinja would read {% and {{ in it
        self.sql: Any = literal(read_sql(include_dir() / "sql" / sql))

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.cleaning import load_contract
        from recsys_ops.ingest.catalogue import write_catalogue
        from recsys_ops.source.catalogue import (
            eligible_items,
            normalise_catalogue,
            unmanaged_share,
        )
        from recsys_ops.source.database import query_frame

        delivered = query_frame(
            database_url(settings), self.sql, {}, timeout_s=settings.source.statement_timeout_s
        )
        rule = load_contract(include_dir() / settings.cleaning.contract).columns["item_id"]
        products, rejected = normalise_catalogue(delivered, rule)
        if rejected:
            log.warning("catalogue rows without a valid item_id were left out: %s", rejected)
        eligible = eligible_items(
            products, sell_unmanaged_stock=settings.lists.sell_unmanaged_stock
        )
        accepted = write_catalogue(
            open_storage(settings),
            day,
            products,
            settings.source.min_kept_share,
            accept_reason(context),
        )
        return {
            "items": products.height,
            "rejected": rejected,
            "eligible": eligible.height,
            "unmanaged_share": round(unmanaged_share(products), 4),
            "accepted": accepted,
        }
