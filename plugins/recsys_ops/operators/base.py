"""The base of every operator: the day of the run, its report, and which errors are retried."""

import logging
import time
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from recsys_ops.connections import open_storage
from recsys_ops.errors import (
    RecsysError,
    ServingError,
    SourceError,
    StorageError,
    TrackingError,
    WorkerError,
)
from recsys_ops.run_day import check_day_is_over, read_day
from recsys_ops.settings import Settings, load_settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context


log = logging.getLogger(__name__)


class DayOperator(BaseOperator):
    """A task about one day.

    Subclasses write `run`, which returns the day's figures: counts, never rows. The figures go to
    the log, to XCom and to ``reports/day=…/<task>.json``.

    Errors of external systems (database, storage, Redis, MLflow, training machine) are retried;
    every other RecsysError fails the task immediately.
    """

    template_fields: Sequence[str] = ("day",)

    def __init__(
        self, *, day: str = "{{ macros.recsys_ops.run_day(dag_run, params) }}", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.day = day

    @property
    def name(self) -> str:
        """The task's id without those of its task groups."""
        return self.task_id.rpartition(".")[2]

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        """Do the work of the task for a day; returns its figures."""
        raise NotImplementedError

    def execute(self, context: "Context") -> dict[str, Any]:
        started = time.perf_counter()
        try:
            settings, day = load_settings(), read_day(self.day)
            check_day_is_over(day, context["dag_run"])
            figures = self.run(day, settings, context)
            seconds = round(time.perf_counter() - started, 2)
            open_storage(settings).write_json(
                paths.report(self.name, day), {**figures, "seconds": seconds}
            )
        except (SourceError, StorageError, ServingError, TrackingError, WorkerError):
            raise
        except RecsysError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        log.info(
            "day=%s %s %.1f s",
            self.day,
            " ".join(f"{name}={_format_figure(value)}" for name, value in figures.items()),
            seconds,
        )
        return figures


def accept_reason(context: "Context") -> str | None:
    """Why a loss of rows or items is to be accepted, and who says so, from the trigger form."""
    reason, user = context["params"].get("accept_reason"), context["dag_run"].triggering_user_name
    return f"{reason} ({user})" if reason and user else reason


def _format_figure(value: Any) -> str:
    """A figure for the log, such as ``1,204`` or ``(crawler 1,204, bot 88)``."""
    match value:
        case dict():
            return (
                f"({', '.join(f'{name} {_format_figure(inner)}' for name, inner in value.items())})"
            )
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return str(value)
