"""Start the training machine on Google Compute Engine."""

from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn

from recsys_ops.launchers.gce import request_stop, start_machine
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class StartMachineOperator(DayOperator):
    """Start the machine of ``worker.gce``: a setup task, whose teardown stops the machine."""

    def execute(self, context: "Context") -> dict[str, Any]:
        try:
            return super().execute(context)
        except BaseException:
            # a failed setup has no teardown: the machine would run on and bill
            worker = load_settings().worker
            if worker.gce:
                request_stop(worker.gce, worker.google_conn_id)
            raise

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        assert settings.worker.gce is not None
        return start_machine(settings.worker.gce, settings.worker.google_conn_id)

    def on_kill(self) -> NoReturn:
        """Leave `execute`, which requests the stop; without an exception it would go on waiting."""
        raise SystemExit("killed, or over execution_timeout, while the machine was started")
