"""### Train a new model version, and publish it if it passes the gate

A run starts when `recsys_ingest` announces a day. The new version learns from the history before
that **day** and is evaluated on what users did on the day, beside the champion, the version that
was live 30 days ago, and a list of popular items. A refit then adds the day itself. The **gate**
decides whether the version is blessed; its sentence is the task's note, and all rules with their
numbers are in `models/<version>/verdict.json`. A version that is not blessed fails the run, or
skips the rest of it (`gate.when_not_blessed`); Redis is not touched and the champion stays live.
`refresh_redis` stages and verifies all lists, then swaps them together. With `gate.approval` a
person must approve first.

With `mlflow.conn_id` every version is mirrored to an MLflow server, blessed or not. If that fails,
the task fails but not the run.

With `worker.gce` the machine is started after the matrix is built, and stopped after `train`, also
if `train` failed.

A run without a `day` is about yesterday, even if an earlier day was announced. Redis is not touched
by a run for an earlier day than the live version's, by a backfill, or by `airflow tasks test`.

**Trigger form**

- `day`: another day than yesterday.
- `publish_reason`: why the version of an earlier day or of a backfill should go live.
- `force_deploy`: why a version that is not blessed should go live.
- `accept_reason`: why the catalogue may lose more items than `source.min_kept_share` allows.

All reasons are recorded with the user's name.
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
from recsys_ops.settings import load_settings

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
            description="The last day to learn from, YYYY-MM-DD; empty: yesterday",
        ),
        "publish_reason": Param(
            None,
            type=["null", "string"],
            minLength=5,
            description="Why the version of an earlier day or a backfill should go live",
        ),
        "force_deploy": Param(
            None,
            type=["null", "string"],
            minLength=5,
            description="Why a version that is not blessed should go live",
        ),
        "accept_reason": Param(
            None,
            type=["null", "string"],
            minLength=5,
            description="Why the catalogue may lose items that it had",
        ),
    },
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
                subject="Put the new version live?",
                body="{{ ti.xcom_pull(task_ids='gate', key='summary') }}",
                execution_timeout=timedelta(hours=10),
            )
            gate >> approve >> refresh_redis
        if load_settings().mlflow.conn_id:
            # As a teardown it also mirrors versions that are not blessed, and its own failure does
            # not fail the run.
            refresh_redis >> MirrorOperator(task_id="mirror").as_teardown()

    extract_catalogue >> build_matrix >> train >> evaluate >> gate >> refresh_redis
