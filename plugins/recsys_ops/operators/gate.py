"""The gate: blessed or not, every rule with its numbers, kept with the version as ``verdict.json``."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths
from recsys_ops.errors import NotBlessedError
from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class GateOperator(DayOperator):
    """Judge the challenger. A refusal fails the task and with it the run: what is live stays live."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.evaluation.gate import decide

        store = storage(settings)
        version = store.read_json(paths.job(day, "spec.json"))["version"]
        metrics = store.read_json(paths.model(version, "metrics.json"))
        verdict = decide(metrics, settings.gate)
        drawn = metrics.get("bootstrap", {})
        facts = {"version": version, "draws": drawn.get("draws"), "seed": drawn.get("seed")}
        store.write_json(paths.model(version, "verdict.json"), {**facts, **verdict.to_dict()})
        if not verdict.blessed:
            raise NotBlessedError(f"{version} is {verdict.summary}. What is live stays live.")
        return {"version": version, "verdict": verdict.summary}
