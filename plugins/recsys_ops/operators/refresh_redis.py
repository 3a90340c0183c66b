"""Publish the lists of the day's version in Redis: stage, verify, swap."""

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_redis, open_storage
from recsys_ops.models import files
from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import DagRunLike, is_backfill, is_tasks_test
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context

    from recsys_ops.models.deployments import DeploymentState


class RefreshRedisOperator(DayOperator):
    """Check the day's version and put it live.

    Redis is not changed in `airflow tasks test` and for a blocked version. Without a
    `publish_reason` it is not changed in a backfill either, nor for a day before that of the live
    version.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.models.deployments import (
            Deployment,
            HeldBackError,
            list_deployments,
            read_deployment_state,
            recorded_swap,
        )
        from recsys_ops.models.verdict import read_verdict
        from recsys_ops.models.version import verify_version
        from recsys_ops.serving.publish import publish
        from recsys_ops.serving.version_lists import read_version_lists

        storage = open_storage(settings)
        spec = storage.read_record(paths.job(day, files.SPEC), "version", "champion")
        version = spec["version"]
        manifest, verdict = verify_version(storage, version), read_verdict(storage, version)
        lists = read_version_lists(storage, manifest)
        params, dag_run = context["params"], context["dag_run"]
        reason = params.get("publish_reason")
        because = reason or (verdict["forced"] or {}).get("reason") or verdict["summary"]
        deployment = Deployment(
            version=version, day=str(day), reason=because, by=dag_run.triggering_user_name
        )

        def check(live: "DeploymentState") -> None:
            if held := why_not_live(dag_run, spec, day, live, reason):
                raise HeldBackError(held)

        held = None
        try:
            check(read_deployment_state(storage))
            # while it was staged, somebody may have rolled back: the record checks again
            record = partial(recorded_swap, storage, deployment, check)
            publish(open_redis(settings), settings.serving, version, lists, record)
        except HeldBackError as error:
            held = str(error)
        live = [deployed["version"] for deployed in list_deployments(storage)[-1:]] or ["nothing"]
        why = f" ({version} is held back: {held})" if held else ""
        # an earlier release's verdict does not describe the data
        data = verdict.get("data", verdict["summary"])
        return {
            "night": f"{data}; live: {live[0]}{why}",
            "version": version,
            "users": lists.users.height,
            "live": held is None,
            "held_back": held,
        }


def why_not_live(
    dag_run: DagRunLike,
    spec: Mapping[str, Any],
    day: date,
    live: "DeploymentState",
    reason: str | None,
) -> str | None:
    """Why a version that the gate lets pass must not go live in this run; None if it may.

    spec : the job spec of the version, with its ``version`` and ``champion``
    reason : the `publish_reason` of the trigger form
    """
    if is_tasks_test(dag_run):
        return "a tasks test publishes nothing"
    new = spec["version"] not in [deployment["version"] for deployment in live["deployments"]]
    # a new version that was better than a blocked champion has not been compared with a good one
    for blocked in (spec["version"], *([spec["champion"]] if new else [])):
        if blocked in live["blocked"]:
            return (
                f"{blocked} was {live['blocked'][blocked]}; "
                f"recsys_ops models release {blocked} lets this version go live"
            )
    if reason:
        return None
    if is_backfill(dag_run):
        return "a backfill publishes nothing"
    live_day = live["deployments"][-1]["day"] if live["deployments"] else ""
    return f"the live version has seen {live_day} already" if str(day) < live_day else None
