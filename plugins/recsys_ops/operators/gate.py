"""The gate: decide whether the challenger may be served, and write its verdict."""

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

# the key of the XCom from which the UI makes the task's note
SUMMARY = "summary"


class GateOperator(DayOperator):
    """Check the challenger by every gate rule and write its ``verdict.json``.

    A version that is not blessed fails the task and with it the run, or, with
    `gate.when_not_blessed` = skip, skips the rest of the run. What is live stays live.

    A reason in the trigger form's `force_deploy` lets such a version pass, unless it has no lists;
    the verdict records the reason and who gave it.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.evaluation.gate import decide
        from recsys_ops.models.verdict import write_verdict

        storage = open_storage(settings)
        version = storage.read_record(paths.job(day, files.SPEC), "version")["version"]
        metrics = storage.read_json(paths.model(version, files.METRICS))
        verdict = decide(metrics, settings.gate)
        forced, reason = None, context["params"].get("force_deploy")
        if reason and not verdict.blessed and not verdict.never_forced:
            forced = {"reason": reason, "by": context["dag_run"].triggering_user_name}
        bootstrap = (
            metrics["bootstrap"] if isinstance(metrics, dict) and "bootstrap" in metrics else None
        )
        details = {"bootstrap": bootstrap, "settings": settings.gate.model_dump()}
        write_verdict(storage, version, {**details, **verdict.to_dict(), "forced": forced})
        sentence = (
            f"{verdict.summary}; forced by {forced['by']}: {forced['reason']}"
            if forced
            else verdict.summary
        )
        if "ti" in context:
            context["ti"].xcom_push(SUMMARY, sentence)
        figures = {
            "night": verdict.data,
            "version": version,
            "verdict": sentence,
            "refused_by": [rule.name for rule in verdict.rules if not rule.passed],
        }
        if verdict.blessed or forced:
            return figures
        storage.write_json(paths.report(self.name, day), figures)
        refused = f"{version} is {verdict.summary}. What is live stays live."
        if reason:
            refused += f" force_deploy cannot override: {'; '.join(verdict.never_forced)}"
        error = NotBlessedError(refused)
        if settings.gate.when_not_blessed == "skip":
            alert({**context, "exception": error})
            raise AirflowSkipException(str(error))
        raise error
