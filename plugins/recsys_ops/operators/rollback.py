"""An earlier model version live again, within seconds, and the versions that the trigger form offers for it."""

from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from recsys_ops import windows
from recsys_ops.errors import SettingsError
from recsys_ops.operators.base import DayOperator, redis_client, storage
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

# the Airflow variable that the trigger form is made of: a DAG file must not ask the storage while it is parsed
OFFERED = "recsys_rollback_versions"


class RollbackOperator(DayOperator):
    """Check the form's version, block what is newer, put the version's lists live, and note who wanted it and why.

    Blocked are all deployed versions that have learnt from the version's last day or a later one: the one rolled back from, and
    those in between. Chosen by a person, a version that was blocked is released. Publishes nothing in `airflow tasks test`.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.serving import deployments
        from recsys_ops.serving.publish import publish
        from recsys_ops.serving.verdicts import read_verdict
        from recsys_ops.versions import check_exists
        from recsys_ops.worker.model import read_frame, verify

        store = storage(settings)
        version, reason = context["params"]["version"], context["params"]["reason"]
        if not version or not reason:
            raise SettingsError("version and reason are needed: trigger with both; recsys_ops models list shows the versions")
        check_exists(store, version)
        manifest = verify(store, version)
        read_verdict(store, version)
        recommendations = read_frame(store, manifest, "recommendations")
        popular = read_frame(store, manifest, "popular")["item_id"].head(settings.lists.top_n).to_list()
        past = deployments.deployments(store)
        newer = sorted({d["version"] for d in past if d["day"] >= str(manifest.day)} - {version})
        figures = {"version": version, "users": recommendations.height, "rolled_back_from": newer, "reason": reason}
        if windows.is_tasks_test(context["dag_run"]):
            return {**figures, "live": False, "held_back": "a tasks test publishes nothing"}
        by = context["dag_run"].triggering_user_name
        # first, so that no run puts them live again meanwhile
        deployments.block(store, newer, f"rolled back to {version}: {reason}")
        publish(redis_client(settings), settings.serving, version, recommendations, popular)
        deployments.release(store, version)
        deployments.record(store, version, manifest.day, reason, by)
        return {**figures, "live": True, "by": by}


def offer_versions(context: "Context") -> None:
    """A task's ``on_success_callback``: the versions that one can roll back to now into the variable of the trigger form."""
    from recsys_ops.versions import rollback_targets

    Variable.set(OFFERED, rollback_targets(storage(load_settings())), serialize_json=True)
