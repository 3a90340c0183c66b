"""From the production database to the raw day, as delivered."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from recsys_ops import paths, windows
from recsys_ops.errors import SourceError
from recsys_ops.operators.base import DayOperator, database_url, storage
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExtractDeltaOperator(DayOperator):
    """Read the events recorded from `first_day` to the end of `day` and keep them whole as the day's raw object.

    `sql` selects them between the bound parameters ``:start`` and ``:end``; it must deliver the column `recorded_at`.
    """

    template_fields: Sequence[str] = ("day", "first_day", "sql")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql"}

    def __init__(self, *, sql: str, first_day: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.first_day = first_day or (
            f"{{{{ macros.recsys_ops.first_day(dag_run, params, {load_settings().source.lookback_days}) }}}}"
        )

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.source import database

        first = date.fromisoformat(self.first_day)
        window = {"start": windows.midnight(first), "end": windows.midnight(day + timedelta(days=1))}
        frame = database.read(database_url(settings), self.sql, window, timeout_s=settings.source.statement_timeout_s)
        if "recorded_at" not in frame.columns:
            raise SourceError("the events query delivers no column recorded_at, by which days are cut; name one in its SQL")
        storage(settings).write_parquet(paths.raw(day), frame, {"first_day": str(first)})
        return {"rows": frame.height, "first_day": str(first), "columns": len(frame.columns)}
