"""What has had its time: personal data, days that no model learns from any more, and old model versions."""

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

PERSONAL: tuple[Callable[[date], str], ...] = (
    paths.raw,
    lambda day: paths.step("", day),
    lambda day: paths.quarantine("", day),
    lambda day: paths.job(day, ""),
)
_LONGER_THAN_ANY_RUN = timedelta(days=2)


class ExpireOperator(DayOperator):
    """Delete raw days, cleaning steps, quarantine and jobs after `raw_retention_days`; keep the history tidy, its codes, and the
    model versions.

    The days are counted back from the run's own, never from the clock, so that a run of an old day deletes nothing newer and
    nothing that it wrote. What was written less than two days before that day ended stays for a later run: a backfill may be
    at work on it. Skipped in a backfill. Reports, every version's metrics and verdict, and the catalogue stay: they hold no
    personal data, and explain months later what was decided.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        if is_backfill(context["dag_run"]):
            raise AirflowSkipException(
                f"day {day} was backfilled: the next scheduled run deletes what is too old"
            )
        from recsys_ops.history.table import apply_retention
        from recsys_ops.models.registry import expire_versions

        store = open_storage(settings)
        raw_days, days = settings.storage.raw_retention_days, settings.history.retention_days
        written = day_start(day + timedelta(days=1)) - _LONGER_THAN_ANY_RUN
        expired = expire(store, day - timedelta(days=raw_days), written, PERSONAL) | expire(
            store, day - timedelta(days=days), written, (paths.encoded,)
        )
        expired["models"] = expire_versions(store, day, written, settings.models)
        return {
            "expired": expired,
            "leftovers": store.delete_half_written(written),
            **apply_retention(store, day, settings.history),
        }


def expire(
    store: "Storage", oldest: date, written: datetime, kinds: Iterable[Callable[[date], str]]
) -> dict[str, int]:
    """Delete the objects of the days before `oldest` that the store got before `written`; returns how many by kind.

    kinds : functions that give a path of each kind.
    """
    counts = {}
    for path_of in kinds:
        prefix = path_of(oldest).partition(f"{oldest}")[0]  # raw/day=
        kind = prefix.partition("/")[0]
        # ISO dates ascend as text
        objects = {
            path: at for path, at in store.write_times(kind).items() if path.startswith(prefix)
        }
        expired = [
            path for path, at in objects.items() if path < f"{prefix}{oldest}" and at < written
        ]
        for path in expired:
            store.delete(path)
        counts[kind] = len(expired)
    return counts
