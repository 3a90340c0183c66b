"""Delete what has expired: personal data, old days of the history, old model versions."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from recsys_ops.connections import open_storage
from recsys_ops.errors import StorageError
from recsys_ops.operators.base import DayOperator, accept_reason
from recsys_ops.run_day import day_start, is_backfill
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context

    from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

PERSONAL_DATA: tuple[Callable[[date], str], ...] = (
    lambda day: paths.generation(paths.RAW, day, 0, ""),
    lambda day: paths.step("", day),
    lambda day: paths.quarantine("", day),
    lambda day: paths.job(day, ""),
)
_LONGER_THAN_ANY_RUN = timedelta(days=2)
# an error message names at most this many objects
_NAMED = 10


class ExpireOperator(DayOperator):
    """Delete raw objects, cleaning steps, quarantine and jobs after `raw_retention_days`.

    Also deletes days of the history and encoded days after `history.retention_days`, and old model
    versions. Reports, the catalogue, and the metrics and verdict of every version stay: they hold
    no personal data and explain decisions months later.

    Ages count back from the day of the run, not from the clock, so that a run of an old day deletes
    nothing newer and nothing of its own. An object that was written less than two days before the
    end of that day stays for a later run, because a backfill may be using it. A backfill skips this
    task. An object that cannot be read or deleted keeps no other from expiring; at the end the task
    fails with the list of them. More days of the history than those of a month are deleted at once
    only with an `accept_reason`.
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
        personal, problems = expire(storage, day - timedelta(days=raw_days), written, PERSONAL_DATA)
        encoded, more = expire(storage, day - timedelta(days=days), written, (paths.encoded,))
        models, of_models = expire_versions(storage, day, written, settings.models)
        figures = {
            "expired": {**personal, **encoded, "models": models},
            "leftovers": storage.delete_half_written(written),
            **apply_retention(storage, day, settings.history, accept_reason(context)),
        }
        if problems := [*problems, *more, *of_models]:
            log.info("all others have expired: %s", figures)
            left = len(problems) - _NAMED
            raise StorageError(
                f"{len(problems):,} objects did not expire or could not be read, all others are "
                f"done: {'; '.join(problems[:_NAMED])}{f'; and {left:,} more' if left > 0 else ''}"
            )
        return figures


def expire(
    storage: "Storage",
    oldest: date,
    written: datetime,
    path_functions: Iterable[Callable[[date], str]],
) -> tuple[dict[str, int], list[str]]:
    """Delete the objects of days before `oldest` that were written before `written`.

    Objects that are not in the folder of a day are another program's, and stay.

    path_functions : give for a day the path of an object, of each kind to delete

    Returns the number of deleted objects by kind, which is the first folder of their paths; and a
    sentence for each object that could not be deleted, or whose time of writing is in the future.
    """
    counts, problems = {}, []
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for path_of in path_functions:
        kind = path_of(oldest).partition("/")[0]
        counts[kind] = 0
        for path, time in storage.write_times(kind).items():
            parts = paths.parse(path)
            if parts is None or parts.day >= oldest:
                continue
            if time > tomorrow:
                problems.append(
                    f"{storage.url(path)} has the time {time:%Y-%m-%d}, which is in the future: "
                    "delete it by hand"
                )
            elif time < written:
                try:
                    storage.delete(path)
                    counts[kind] += 1
                except StorageError as error:
                    problems.append(str(error))
    return counts, problems
