"""Evaluate challenger, champion, reference and popularity on the same hold-out."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.models import files
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvaluateOperator(DayOperator):
    """Compute the metrics of the lists that the worker has made, and write ``metrics.json``."""

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        from recsys_ops.models.spec import read_spec
        from recsys_ops.models.version import evaluation_figures

        storage = open_storage(settings)
        spec = read_spec(storage, day)
        metrics = evaluation_figures(storage, spec)
        storage.write_json(paths.model(spec.version, files.METRICS), metrics)
        ndcg = f"ndcg@{metrics['cutoffs'][-1]}"
        models = ("challenger", "champion", "popularity", "reference")
        return {
            "version": spec.version,
            "users": metrics["users"],
            **{
                f"{name} {ndcg}": round(metrics[name][ndcg], 4)
                for name in models
                if metrics[name] is not None
            },
            "overlap after the refit": round(metrics["parity"]["overlap"], 3),
        }
