"""Stopping the training machine on Google Compute Engine."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.launchers.gce import request_stop, stop_machine
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class StopMachineOperator(DayOperator):
    """Bring the machine of ``worker.gce`` down."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        assert settings.worker.gce is not None
        return stop_machine(settings.worker.gce, settings.worker.google_conn_id)


def stop_left_on(context: "Context") -> None:
    """A DAG's callback at its end. A run that is out of time skips its teardowns, and one of which only `train` was cleared has
    started the machine without them.
    """
    worker = load_settings().worker
    if worker.gce:
        request_stop(worker.gce, worker.google_conn_id)
