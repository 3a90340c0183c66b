"""Extract the events of a run from the database, unchanged, into a raw object."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import literal

from recsys_ops.connections import database_url, open_storage
from recsys_ops.operators.base import DayOperator, accept_reason
from recsys_ops.run_day import days_between, format_days, requested_lookback
from recsys_ops.settings import Settings, include_dir
from recsys_ops.source.sql import read_sql
from recsys_ops.storage.temporary_folder import temporary_folder

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ExtractDeltaOperator(DayOperator):
    """Read the events that were recorded on `day`, and on some days before it, into a raw object.

    The days before are the lookback, and those that the history lacks. `sql` selects the events
    between the bound parameters ``:start`` and ``:end`` and must deliver the column `recorded_at`.
    It runs once for every `source.slice_hours` of a day.

    No delivery is replaced: a new raw object becomes the current one when all slices have been read
    and no day has lost rows since the delivery before, or the trigger form has an `accept_reason`.
    """

    template_fields: Sequence[str] = ("day", "sql")
    template_fields_renderers = {"sql": "sql"}

    def __init__(self, *, sql: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # shown in the UI as a template field, but no template: Jinja would read {% and {{ in it
        self.sql: Any = literal(read_sql(include_dir() / "sql" / sql))

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.history.table import rows_by_day
        from recsys_ops.ingest.deliveries import check_delivery, missing_days, write_delivery
        from recsys_ops.source.full_scans import full_scans
        from recsys_ops.source.slices import cut, extract_slices

        database, source = database_url(settings), settings.source
        storage, run = open_storage(settings), context["dag_run"]
        history, requested = rows_by_day(storage), requested_lookback(run, context["params"])
        lookback = source.lookback_days if requested is None else requested
        days = days_between(day - timedelta(days=lookback), day)
        caught_up = []
        if requested is None:
            # an empty day is known as long as its delivery exists
            back = min(source.catch_up_days, settings.storage.raw_retention_days)
            earlier = days_between(day - timedelta(days=back), days[0])[:-1]
            caught_up = missing_days(storage, earlier, history)
        if caught_up:
            log.warning("also reads days that the history lacks: %s", format_days(caught_up))
        start, end = next(cut(day, source.slice_hours))
        scans = full_scans(
            database, self.sql, {"start": start, "end": end}, timeout_s=source.statement_timeout_s
        )
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
                [*caught_up, *days],
                hours=source.slice_hours,
                connections=source.connections,
                timeout_s=source.statement_timeout_s,
                folder=folder,
            )
            accepted = check_delivery(
                storage, rows, history, source.min_kept_share, accept_reason(context)
            )
            write_delivery(storage, day, frame, rows, run.run_id, accepted)
            columns = len(frame.collect_schema())
        return {
            "rows": sum(rows.values()),
            "first_day": str(days[0]),
            "empty_days": format_days([read for read, count in rows.items() if not count]),
            "caught_up": [str(missing) for missing in caught_up],
            "accepted": accepted,
            "columns": columns,
            "full_scan": [scan.table for scan in scans],
        }
