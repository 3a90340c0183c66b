"""What has had its time: personal data, and days that no model learns from any more."""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from recsys_ops import paths, windows
from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from recsys_ops.storage import Storage

PERSONAL: tuple[Callable[[date], str], ...] = (
    paths.raw,
    lambda day: paths.step("", day),
    lambda day: paths.quarantine("", day),
    lambda day: paths.job(day, ""),
)


class ExpireOperator(DayOperator):
    """Delete raw days, cleaning steps, quarantine and jobs after `raw_retention_days`; keep the history tidy, and its codes.

    The days are counted back from the run's own, never from the clock, so that a run of an old day deletes nothing newer and
    nothing that it wrote. Skipped in a backfill. Reports, models and the catalogue stay: they hold no personal data, and
    explain months later what was decided.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        if windows.is_backfill(context["dag_run"]):
            raise AirflowSkipException(f"day {day} was backfilled: the next scheduled run deletes what is too old")
        from recsys_ops import history

        store = storage(settings)
        raw_days, days = settings.storage.raw_retention_days, settings.history.retention_days
        expired = expire(store, day - timedelta(days=raw_days), PERSONAL) | expire(
            store, day - timedelta(days=days), (paths.coded,)
        )
        return {"expired": expired, **history.tidy(store, day, settings.history)}


def expire(store: "Storage", oldest: date, kinds: Iterable[Callable[[date], str]]) -> dict[str, int]:
    """Delete the objects of the days before `oldest`, given a path of each kind; returns how many by kind."""
    counts = {}
    for path_of in kinds:
        prefix = path_of(oldest).partition(f"{oldest}")[0]  # raw/day=
        kind = prefix.partition("/")[0]
        # ISO dates ascend as text
        expired = [path for path in store.list(kind) if path.startswith(prefix) and path < f"{prefix}{oldest}"]
        for path in expired:
            store.delete(path)
        counts[kind] = len(expired)
    return counts
