"""The gate: blessed or not, every rule with its numbers, kept with the version as ``verdict.json``."""

import logging
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from recsys_ops.connections import open_storage
from recsys_ops.errors import NotBlessedError
from recsys_ops.models import files
from recsys_ops.operators.alerts import alert
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# of the XCom from which the task's note in the UI is made
SUMMARY = "summary"


class GateOperator(DayOperator):
    """Judge the challenger. A refusal fails the task and with it the run, or skips its rest: what is live stays live.

    The trigger form's `force_deploy`, a reason, lets a refused model pass; who wanted it and why is part of the verdict.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.evaluation.gate import decide
        from recsys_ops.models.verdict import write_verdict

        store = open_storage(settings)
        version = store.read_json(paths.job(day, files.SPEC))["version"]
        metrics = store.read_json(paths.model(version, files.METRICS))
        verdict = decide(metrics, settings.gate)
        forced = None
        if not verdict.blessed and (reason := context["params"].get("force_deploy")):
            forced = {"reason": reason, "by": context["dag_run"].triggering_user_name}
        drawn = (
            metrics["bootstrap"] if isinstance(metrics, dict) and "bootstrap" in metrics else None
        )
        facts = {"bootstrap": drawn, "settings": settings.gate.model_dump()}
        write_verdict(store, version, {**facts, **verdict.to_dict(), "forced": forced})
        said = (
            f"{verdict.summary}; forced by {forced['by']}: {forced['reason']}"
            if forced
            else verdict.summary
        )
        if "ti" in context:
            context["ti"].xcom_push(SUMMARY, said)
        figures = {
            "version": version,
            "verdict": said,
            "refused_by": [rule.name for rule in verdict.rules if not rule.passed],
        }
        if verdict.blessed or forced:
            return figures
        store.write_json(paths.report(self.name, day), figures)
        error = NotBlessedError(f"{version} is {verdict.summary}. What is live stays live.")
        if settings.gate.when_not_blessed == "skip":
            alert({**context, "exception": error})
            raise AirflowSkipException(str(error))
        raise error
