"""Put an earlier model version live again, and offer the possible versions in the trigger form."""

from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from recsys_ops.connections import open_redis, open_storage
from recsys_ops.errors import SettingsError
from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import is_tasks_test
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

# the Airflow variable with the versions: a DAG file must not read storage while it is parsed
OFFERED = "recsys_rollback_versions"


class RollbackOperator(DayOperator):
    """Check the version of the form, put it live, and block the newer versions.

    See `recsys_ops.serving.rollback.roll_back`. Publishes nothing in `airflow tasks test`.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.models.registry import check_exists
        from recsys_ops.models.verdict import read_verdict
        from recsys_ops.models.version import verify_version
        from recsys_ops.serving.rollback import roll_back

        storage = open_storage(settings)
        version, reason = context["params"]["version"], context["params"]["reason"]
        if not version or not reason:
            raise SettingsError(
                "version and reason are needed: trigger with both; "
                "recsys_ops models list shows the versions"
            )
        check_exists(storage, version)
        verify_version(storage, version)
        read_verdict(storage, version)
        if is_tasks_test(context["dag_run"]):
            return {
                "version": version,
                "reason": reason,
                "live": False,
                "held_back": "a tasks test publishes nothing",
            }
        by = context["dag_run"].triggering_user_name
        return {
            **roll_back(storage, open_redis(settings), settings.serving, version, reason, by),
            "live": True,
        }


def offer_versions(context: "Context") -> None:
    """Write the versions that can be rolled back to into the variable of the trigger form.

    This is a task's ``on_success_callback``.
    """
    from recsys_ops.models.registry import rollback_targets

    Variable.set(OFFERED, rollback_targets(open_storage(load_settings())), serialize_json=True)
