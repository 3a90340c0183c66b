"""Stop the training machine on Google Compute Engine."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.launchers.gce import request_stop, stop_machine
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class StopMachineOperator(DayOperator):
    """Stop the machine of ``worker.gce``."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        assert settings.worker.gce is not None
        return stop_machine(settings.worker.gce, settings.worker.google_conn_id)


def stop_left_on(context: "Context") -> None:
    """Request the machine's stop: a DAG's callback at the end of a run.

    The teardown task does not suffice. A run that is over its time limit skips its teardowns, and a
    run of which only `train` was cleared starts the machine without them.
    """
    worker = load_settings().worker
    if worker.gce:
        request_stop(worker.gce, worker.google_conn_id)
