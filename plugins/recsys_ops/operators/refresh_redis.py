"""The blessed version's lists into Redis: staged, verified, swapped."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths, windows
from recsys_ops.errors import NotBlessedError
from recsys_ops.operators.base import DayOperator, redis_client, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class RefreshRedisOperator(DayOperator):
    """Check the day's version and put it live, unless the run is one that never goes live: then Redis is not touched.

    Those are: `airflow tasks test`, a backfill, and a day before the live version's; the last two may with a `publish_reason`.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.serving.deployments import deployments, record
        from recsys_ops.serving.publish import publish
        from recsys_ops.worker.model import read_frame, verify

        store = storage(settings)
        version = store.read_json(paths.job(day, "spec.json"))["version"]
        manifest = verify(store, version)
        verdict = store.read_json(paths.model(version, "verdict.json"))
        if verdict["version"] != version or verdict["blessed"] is not True:
            raise NotBlessedError(f"{version} is {verdict['summary']}")
        recommendations = read_frame(store, manifest, "recommendations")
        popular = read_frame(store, manifest, "popular")["item_id"].head(settings.serving.top_n).to_list()
        reason = context["params"].get("publish_reason")
        live = deployments(store)
        held = why_not_live(context["dag_run"], day, date.fromisoformat(live[-1]["day"]) if live else None, reason)
        if held is None:
            publish(redis_client(settings), settings.serving, version, recommendations, popular)
            record(store, version, day, reason or verdict["summary"])
        return {"version": version, "users": recommendations.height, "live": held is None, "held_back": held}


def why_not_live(dag_run: windows.Run, day: date, live_day: date | None, reason: str | None) -> str | None:
    """Why a blessed version stays out of Redis all the same, or None."""
    if windows.is_tasks_test(dag_run):
        return "a tasks test publishes nothing"
    if reason:
        return None
    if windows.is_backfill(dag_run):
        return "a backfill publishes nothing"
    if live_day is not None and day < live_day:
        return f"the live version has seen {live_day} already"
    return None
