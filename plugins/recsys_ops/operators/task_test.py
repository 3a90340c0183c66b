"""``python -m recsys_ops.operators.task_test DAG TASK… DAY``: run tasks of one day, each alone.

``airflow tasks test`` exits with 0 when the task failed, and writes into an existing run of the
date. This module runs the same command in a temporary AIRFLOW_HOME, with the configured
connections, for one task after the other, and ends with exit code 1 at the first that neither
succeeds nor is skipped.
"""

import multiprocessing
import os
import sys
import tempfile
from datetime import date, timedelta
from typing import TYPE_CHECKING

from recsys_ops.operators.temporary_database import put_database
from recsys_ops.run_day import read_day
from recsys_ops.settings import load_settings

if TYPE_CHECKING:
    from airflow.sdk import DAG


def main(dag_id: str, task_ids: list[str], day: str) -> int:
    """Run tasks of `day`, the day of the data as YYYY-MM-DD; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="recsys-task-test-") as home:
        os.environ.update(_carried_variables(), AIRFLOW_HOME=home)
        for name in [
            name
            for name in os.environ
            if name == "AIRFLOW_CONFIG" or name.startswith("AIRFLOW__DATABASE__")
        ]:
            del os.environ[name]
        child = multiprocessing.get_context("spawn").Process(
            target=_run_tasks, args=(dag_id, task_ids, read_day(day))
        )
        child.start()
        child.join()
        return child.exitcode or 0


def _carried_variables() -> dict[str, str]:
    """The temporary Airflow's variables: folders, and the connections that our settings name."""
    from airflow.configuration import conf
    from airflow.models import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    settings = load_settings()
    carried = {
        f"AIRFLOW__CORE__{key.upper()}": conf.get("core", key)
        for key in ("dags_folder", "plugins_folder")
    }
    blob = None if settings.storage.root.startswith("file:") else settings.storage.conn_id
    worker = (settings.worker.ssh.conn_id, settings.worker.google_conn_id)
    for conn_id in filter(
        None,
        (settings.source.conn_id, blob, settings.serving.conn_id, settings.alerts.conn_id, *worker),
    ):
        try:
            carried[f"AIRFLOW_CONN_{conn_id.upper()}"] = Connection.get_connection_from_secrets(
                conn_id
            ).as_json()
        except AirflowNotFoundException:
            continue
    return {**carried, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}


def _run_tasks(dag_id: str, task_ids: list[str], day: date) -> None:
    from airflow.utils.cli import get_bagged_dag

    put_database()
    dag = get_bagged_dag(None, dag_id)
    for task_id in task_ids:
        outcome = _run_task(dag, task_id, day)
        print(f"{dag_id} {task_id} {day}: {outcome}", flush=True)
        if outcome == "failed":
            sys.exit(1)


def _run_task(dag: "DAG", task_id: str, day: date) -> str:
    """Returns "success", "skipped" or "failed"."""
    from airflow.cli.cli_parser import get_parser
    from airflow.cli.commands.task_command import task_test

    outcome: list[str] = []
    task = dag.get_task(task_id)
    task.on_success_callback = [lambda context: outcome.append("success")]
    task.on_skipped_callback = [lambda context: outcome.append("skipped")]
    anchor = f"{day + timedelta(days=1)}T02:00:00+00:00"
    task_test(get_parser().parse_args(["tasks", "test", dag.dag_id, task_id, anchor]), dag=dag)
    return outcome[0] if outcome else "failed"


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:-1], sys.argv[-1]))
