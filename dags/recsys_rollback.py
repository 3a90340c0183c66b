"""### An earlier model live again, within seconds

Something is wrong with what the shop shows: trigger this with an earlier **version** and the **reason**. Every file of it is
checked against its SHA-256 sum, its lists are staged, verified and swapped into Redis in one go (those of the version before are
there still, and only swapped), and who wanted it and why is noted with the deployments. Only versions that the gate blessed, or
that somebody forced through it, can be put live.

The newer versions are **blocked**: no run puts them live again, cleared or not, until `recsys_ops models release VERSION`, or
until they are chosen here. Tomorrow's training goes on as ever, from the version that is live then, and meets the same gate.
Where the cause is still there (bad events, a wrong setting), pause `recsys_retrain` as well.

**Trigger form** `version`: a blessed version, the newest first; `recsys_ops models list` says more of each. `reason`: recorded.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, Variable

from recsys_ops.operators.alerts import alert
from recsys_ops.operators.mirror import MirrorOperator
from recsys_ops.operators.rollback import OFFERED, RollbackOperator, offer_versions
from recsys_ops.settings import load_settings

with DAG(
    "recsys_rollback",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=1),
    default_args={
        "owner": "recsys",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(minutes=15),
        "on_failure_callback": alert,
    },
    params={
        # null only where no form is filled in: `airflow tasks test` refuses a DAG whose params have no value
        "version": Param(
            None,
            type=["null", "string"],
            examples=Variable.get(OFFERED, default=[], deserialize_json=True),
            description="The version to put live, the newest first",
        ),
        "reason": Param(None, type=["null", "string"], minLength=5, description="Why; is recorded"),
    },
    tags=["recsys", "serve"],
    doc_md=__doc__,
):
    rollback = RollbackOperator(task_id="rollback", on_success_callback=offer_versions)
    if load_settings().mlflow.conn_id:
        rollback >> MirrorOperator(task_id="mirror").as_teardown()
