"""Run ``recsys_retrain`` with ``dag.test``; its tasks do nothing, except those of the machine.

Each line of standard input starts a run. It is JSON: ``broken``, the tasks that fail, and
``retries``. The first line of the output names the tasks before the gate. After each run a line
has the states of the tasks, the state of the run, and for each try of ``train`` whether the machine
was running already.
"""

import json
import os
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

from airflow.dag_processing.dagbag import DagBag

from recsys_ops.errors import DataError, WorkerError
from recsys_ops.launchers.gce import start_machine
from recsys_ops.operators.base import DayOperator
from recsys_ops.operators.temporary_database import put_database


def main() -> None:
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Airflow writes its log to standard output
    put_database()
    sleep = time.sleep
    # dag.test waits a second for each task whose upstream task failed
    time.sleep = lambda seconds: sleep(min(seconds, 0.2))
    dag = DagBag("dags").dags["recsys_retrain"]
    print(
        json.dumps(sorted(dag.get_task("gate").get_flat_relative_ids(upstream=True))), file=output
    )
    plan = SimpleNamespace(broken=[], found_up=[])

    def run(self, day, settings, context):
        if self.task_id == "train":
            plan.found_up.append(
                start_machine(settings.worker.gce, settings.worker.google_conn_id)[
                    "already_running"
                ]
            )
        if self.task_id in plan.broken:
            raise (WorkerError if self.task_id == "train" else DataError)(
                f"{self.task_id} is broken"
            )
        return {}

    for task in dag.tasks:
        task.retry_delay = timedelta(0)
        if task.task_id not in ("start_machine", "stop_machine"):
            assert isinstance(task, DayOperator)
            type(task).run = run
    for line in sys.stdin:
        order = json.loads(line)
        plan.broken, plan.found_up = order["broken"], []
        for task in dag.tasks:
            task.retries = order["retries"]
        dag_run = dag.test(logical_date=None, run_conf={"day": "2026-05-01"})
        states = {task.task_id: str(task.state) for task in dag_run.get_task_instances()}
        print(
            json.dumps({"states": states, "run": str(dag_run.state), "found_up": plan.found_up}),
            file=output,
        )


if __name__ == "__main__":
    main()
