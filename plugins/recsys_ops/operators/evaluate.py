"""The challenger, the champion and the popularity baseline, scored on the same later behaviour."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths
from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvaluateOperator(DayOperator):
    """Compute the metrics of the lists that the worker left and keep them with the version as ``metrics.json``."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.worker.model import measure
        from recsys_ops.worker.spec import read_spec

        store = storage(settings)
        spec = read_spec(store, day)
        metrics = measure(store, spec, settings.gate.bootstrap_draws)
        store.write_json(paths.model(spec.version, "metrics.json"), metrics)
        decisive = f"ndcg@{metrics['k'][-1]}"
        models = ("challenger", "champion", "popularity", "reference")
        return {
            "version": spec.version,
            "users": metrics["users"],
            **{f"{name} {decisive}": round(metrics[name][decisive], 4) for name in models if metrics[name] is not None},
            "overlap after the refit": round(metrics["parity"]["overlap"], 3),
        }
