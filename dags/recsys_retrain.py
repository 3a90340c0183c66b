"""### A new model, and into Redis if it is no worse

Starts when `recsys_ingest` announces a day. Learns from the history before that **day**, is measured on what people did on it,
beside the live model, that of a month ago and a popularity list, and is then taken through the day itself. The **gate** blesses
it or not: in a line in the task's note, with every rule and its numbers in `models/<version>/verdict.json`. Not blessed fails the
run, or skips its rest (`gate.when_not_blessed`): Redis is untouched and what is live stays live. `refresh_redis` stages, verifies
and swaps all users' lists in one go. With `gate.approval` it waits for a person's word before that.

With `mlflow.conn_id` the version, blessed or not, is mirrored to an MLflow server. Where that fails the task does, not the run.

With `worker.gce` the training machine is started when the matrix is built and stopped when `train` has ended, however it ended.

A run that nobody dates is about yesterday, also when the announced day was an earlier one. A day before the live model's, a
backfill and `airflow tasks test` leave Redis alone.

**Trigger form** `day`: another day than yesterday. `publish_reason`: why an older day's or a backfill's model goes live.
`force_deploy`: why a model goes live that the gate refuses. Both are recorded, with the user.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, Param, TaskGroup

from recsys_ops.operators.alerts import alert
from recsys_ops.operators.build_matrix import BuildMatrixOperator
from recsys_ops.operators.evaluate import EvaluateOperator
from recsys_ops.operators.extract_catalogue import ExtractCatalogueOperator
from recsys_ops.operators.gate import GateOperator
from recsys_ops.operators.mirror import MirrorOperator
from recsys_ops.operators.refresh_redis import RefreshRedisOperator
from recsys_ops.operators.rollback import offer_versions
from recsys_ops.operators.start_machine import StartMachineOperator
from recsys_ops.operators.stop_machine import StopMachineOperator, stop_left_on
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import include_dir, load_settings

with DAG(
    "recsys_retrain",
    schedule=[Asset("recsys_history")],
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    on_success_callback=stop_left_on,
    on_failure_callback=stop_left_on,
    default_args={
        "owner": "recsys",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=3),
        "on_failure_callback": alert,
    },
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            description="Day to train through, YYYY-MM-DD; empty: yesterday",
        ),
        "publish_reason": Param(
            None,
            type=["null", "string"],
            minLength=5,
            description="Why an older day or a backfill goes live",
        ),
        "force_deploy": Param(
            None,
            type=["null", "string"],
            minLength=5,
            description="Why a model goes live that the gate refuses",
        ),
    },
    template_searchpath=str(include_dir() / "sql"),
    tags=["recsys", "train"],
    doc_md=__doc__,
):
    with TaskGroup("training", prefix_group_id=False):
        extract_catalogue = ExtractCatalogueOperator(
            task_id="extract_catalogue", sql="extract_catalogue.sql"
        )
        build_matrix = BuildMatrixOperator(task_id="build_matrix")
        train = TrainOnWorkerOperator(task_id="train", execution_timeout=timedelta(hours=5))
        evaluate = EvaluateOperator(task_id="evaluate")
        if load_settings().worker.gce:
            start_machine = StartMachineOperator(task_id="start_machine")
            stop_machine = StopMachineOperator(task_id="stop_machine")
            stop_machine.as_teardown(setups=start_machine, on_failure_fail_dagrun=True)
            build_matrix >> start_machine >> train >> stop_machine

    with TaskGroup("deploy", prefix_group_id=False):
        gate = GateOperator(task_id="gate")
        refresh_redis = RefreshRedisOperator(
            task_id="refresh_redis", on_success_callback=offer_versions
        )
        if load_settings().gate.approval:
            from airflow.providers.standard.operators.hitl import ApprovalOperator

            approve = ApprovalOperator(
                task_id="approve",
                subject="Put the new model live?",
                body="{{ ti.xcom_pull(task_ids='gate', key='summary') }}",
                execution_timeout=timedelta(hours=10),
            )
            gate >> approve >> refresh_redis
        if load_settings().mlflow.conn_id:
            # a teardown: refused models are mirrored too, and the run is as failed or as successful as without it
            refresh_redis >> MirrorOperator(task_id="mirror").as_teardown()

    extract_catalogue >> build_matrix >> train >> evaluate >> gate >> refresh_redis
