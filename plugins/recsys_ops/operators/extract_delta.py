"""Extract the events of a run from the database, unchanged, into a raw object."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import database_url, open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import day_start
from recsys_ops.settings import Settings, load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.temporary_folder import temporary_folder

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ExtractDeltaOperator(DayOperator):
    """Read the events that were recorded from `first_day` to the end of `day` into a raw object.

    `sql` selects them between the bound parameters ``:start`` and ``:end`` and must deliver the
    column `recorded_at`. It runs once for every `source.slice_hours` of this time. The raw object
    is replaced only when all slices have been read.
    """

    template_fields: Sequence[str] = ("day", "first_day", "sql")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql"}

    def __init__(self, *, sql: str, first_day: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.first_day = first_day or (
            "{{ macros.recsys_ops.first_day(dag_run, params, "
            f"{load_settings().source.lookback_days}) }}}}"
        )

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.source.full_scans import full_scans
        from recsys_ops.source.slices import extract_slices

        database, source = database_url(settings), settings.source
        first = date.fromisoformat(self.first_day)
        start, end = day_start(first), day_start(day + timedelta(days=1))
        slice_ = {"start": start, "end": min(end, start + timedelta(hours=source.slice_hours))}
        scans = full_scans(database, self.sql, slice_, timeout_s=source.statement_timeout_s)
        for scan in scans:
            log.warning(
                "each slice reads all of %s, about %s rows; %s",
                scan.table,
                f"{scan.rows:,}",
                scan.advice,
            )
        with temporary_folder() as folder:
            frame, rows = extract_slices(
                database,
                self.sql,
                start,
                end,
                hours=source.slice_hours,
                connections=source.connections,
                timeout_s=source.statement_timeout_s,
                folder=folder,
            )
            open_storage(settings).sink_parquet(paths.raw(day), frame, {"first_day": str(first)})
            columns = len(frame.collect_schema())
        return {
            "rows": rows,
            "first_day": str(first),
            "columns": columns,
            "full_scan": [scan.table for scan in scans],
        }
