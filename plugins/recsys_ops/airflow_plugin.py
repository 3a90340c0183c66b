"""What Airflow loads of this package: template macros, and a listener for the gate's verdict.

The macro is ``{{ macros.recsys_ops.run_day(…) }}``.
"""

from typing import TYPE_CHECKING

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from recsys_ops.run_day import run_day

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

_VERDICT_PREFIXES = ("blessed: ", "not blessed: ")


class VerdictNotes:
    """Writes the gate's verdict into the note of its task.

    A task cannot write its own note; the scheduler calls this listener at the end of a run.
    """

    @hookimpl
    def on_dag_run_success(self, dag_run: "DagRun") -> None:
        _note_verdict(dag_run)

    @hookimpl
    def on_dag_run_failed(self, dag_run: "DagRun") -> None:
        _note_verdict(dag_run)


class RecsysOpsPlugin(AirflowPlugin):
    name = "recsys_ops"
    macros = [run_day]
    listeners = [VerdictNotes()]


def _note_verdict(dag_run: "DagRun") -> None:
    if dag_run.dag_id != "recsys_retrain":
        return
    from airflow.models.xcom import XComModel
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    gate = dag_run.get_task_instance("gate", session=session) if session else None
    if session is None or gate is None:
        return
    # the note of a person is kept
    if gate.note and not gate.note.startswith(_VERDICT_PREFIXES):
        return
    summary = session.scalars(
        XComModel.get_many(
            run_id=dag_run.run_id, key="summary", task_ids="gate", dag_ids=dag_run.dag_id, limit=1
        )
    ).first()
    if summary is not None:
        gate.note = XComModel.deserialize_value(summary)[:1000]
