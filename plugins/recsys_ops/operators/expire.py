"""Delete what has expired: personal data, old days of the history, old model versions."""

from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import day_start, is_backfill
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context

    from recsys_ops.storage.objects import Storage

PERSONAL_DATA: tuple[Callable[[date], str], ...] = (
    lambda day: paths.generation(paths.RAW, day, 0, ""),
    lambda day: paths.step("", day),
    lambda day: paths.quarantine("", day),
    lambda day: paths.job(day, ""),
)
_LONGER_THAN_ANY_RUN = timedelta(days=2)


class ExpireOperator(DayOperator):
    """Delete raw objects, cleaning steps, quarantine and jobs after `raw_retention_days`.

    Also deletes days of the history and encoded days after `history.retention_days`, and old model
    versions. Reports, the catalogue, and the metrics and verdict of every version stay: they hold
    no personal data and explain decisions months later.

    Ages count back from the day of the run, not from the clock, so that a run of an old day deletes
    nothing newer and nothing of its own. An object that was written less than two days before the
    end of that day stays for a later run, because a backfill may be using it. A backfill skips this
    task.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        if is_backfill(context["dag_run"]):
            raise AirflowSkipException(
                f"day {day} was backfilled: the next scheduled run deletes what is too old"
            )
        from recsys_ops.history.table import apply_retention
        from recsys_ops.models.registry import expire_versions

        storage = open_storage(settings)
        raw_days, days = settings.storage.raw_retention_days, settings.history.retention_days
        written = day_start(day + timedelta(days=1)) - _LONGER_THAN_ANY_RUN
        expired = expire(storage, day - timedelta(days=raw_days), written, PERSONAL_DATA) | expire(
            storage, day - timedelta(days=days), written, (paths.encoded,)
        )
        expired["models"] = expire_versions(storage, day, written, settings.models)
        return {
            "expired": expired,
            "leftovers": storage.delete_half_written(written),
            **apply_retention(storage, day, settings.history),
        }


def expire(
    storage: "Storage",
    oldest: date,
    written: datetime,
    path_functions: Iterable[Callable[[date], str]],
) -> dict[str, int]:
    """Delete the objects of days before `oldest` that were written before `written`.

    path_functions : give for a day the path of an object, of each kind to delete

    Returns the number of deleted objects by kind, which is the first folder of their paths.
    """
    counts = {}
    for path_of in path_functions:
        prefix = path_of(oldest).partition(f"{oldest}")[0]  # raw/day=
        kind = prefix.partition("/")[0]
        # ISO dates sort as text
        expired = [
            path
            for path, time in storage.write_times(kind).items()
            if path.startswith(prefix) and path < f"{prefix}{oldest}" and time < written
        ]
        for path in expired:
            storage.delete(path)
        counts[kind] = len(expired)
    return counts
