"""The catalogue of the day: what may be recommended and what people see of it."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths
from recsys_ops.operators.base import DayOperator, database_url, storage
from recsys_ops.settings import Settings, include_dir

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExtractCatalogueOperator(DayOperator):
    """Keep the catalogue as it stands now as the day's snapshot."""

    template_fields: Sequence[str] = ("day", "sql")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql"}

    def __init__(self, *, sql: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sql = sql

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.cleaning import load_contract
        from recsys_ops.source import catalogue, database

        delivered = database.read(database_url(settings), self.sql, {}, timeout_s=settings.source.statement_timeout_s)
        rule = load_contract(include_dir() / settings.cleaning.contract).columns["item_id"]
        products = catalogue.canonical(delivered, getattr(rule, "case", None))
        storage(settings).write_parquet(paths.catalogue(day), products)
        return {"items": products.height, "eligible": catalogue.eligible(products).height}
