"""### Put an earlier model version live again, within seconds

If the shop shows something wrong, trigger this with an earlier **version** and a **reason**. All
files of the version are compared with their SHA-256 sums. Its lists are staged, verified, and
swapped together; those of the version before the live one are still in Redis and are only swapped.
The user and the reason are recorded with the deployment. Only versions that were blessed, or forced
through the gate, can go live.

The newer versions are **blocked**: no run puts them live again, even if its tasks are cleared,
until `recsys_ops models release VERSION` or until one of them is chosen here. The next training
starts from the version that is then live, and must pass the same gate. If the cause still exists
(wrong events, a wrong setting), pause `recsys_retrain` as well.

**Trigger form**

- `version`: a blessed version, the newest first. `recsys_ops models list` says more about each.
- `reason`: it is recorded.
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
        # Null is allowed because `airflow tasks test` refuses params without a value.
        "version": Param(
            None,
            type=["null", "string"],
            examples=Variable.get(OFFERED, default=[], deserialize_json=True),
            description="The version to put live, the newest first",
        ),
        "reason": Param(
            None, type=["null", "string"], minLength=5, description="Why; it is recorded"
        ),
    },
    tags=["recsys", "serve"],
    doc_md=__doc__,
):
    rollback = RollbackOperator(task_id="rollback", on_success_callback=offer_versions)
    if load_settings().mlflow.conn_id:
        rollback >> MirrorOperator(task_id="mirror").as_teardown()
