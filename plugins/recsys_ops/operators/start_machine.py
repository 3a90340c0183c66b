"""Starting the training machine on Google Compute Engine."""

from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn

from recsys_ops.launchers.gce import request_stop, start_machine
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class StartMachineOperator(DayOperator):
    """Bring the machine of ``worker.gce`` up; a setup, whose teardown is `StopMachineOperator`."""

    def execute(self, context: "Context") -> dict[str, Any]:
        try:
            return super().execute(context)
        except BaseException:
            # a setup that failed has no teardown: the machine would go on and bill
            worker = load_settings().worker
            if worker.gce:
                request_stop(worker.gce, worker.google_conn_id)
            raise

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        assert settings.worker.gce is not None
        return start_machine(settings.worker.gce, settings.worker.google_conn_id)

    def on_kill(self) -> NoReturn:
        """Leave `execute`, which asks for the stop; after Airflow's signal handler it would go on."""
        raise SystemExit("killed, or longer than execution_timeout, while the machine was started")
