"""Propose the best settings of a study."""

import logging
from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops.connections import open_storage
from recsys_ops.operators.base import DayOperator
from recsys_ops.settings import Settings
from recsys_ops.storage import paths
from recsys_ops.tuning.proposal import PROPOSAL

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ProposeOperator(DayOperator):
    """Compare the best trial with the current settings and write the proposal.

    The log shows the lines for `recsys.yaml`, if the gain is certain enough.
    """

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        import yaml

        from recsys_ops.tuning.gain import best_gain
        from recsys_ops.tuning.records import read_scores, read_study
        from recsys_ops.tuning.study import searchable_values, with_values

        storage = open_storage(settings)
        study = read_study(storage, day)
        plan = study.plan
        scores = read_scores(storage, day, study)
        gain = best_gain(scores, plan.training.seed)
        users = sum(map(len, scores[0]))
        best = study.trials[gain.trial]
        configured = searchable_values(settings.training, settings.confidence)
        proposed = searchable_values(*with_values(plan.training, plan.confidence, best.params))
        changed: dict[str, dict[str, Any]] = {}
        for name, value in proposed.items():
            if value != configured[name]:
                section, _, key = name.partition(".")
                changed.setdefault(section, {})[key] = value
        proposal = {
            "better": gain.lower > 0 and users >= settings.gate.min_users,
            "trial": gain.trial,
            "metric": f"ndcg@{plan.evaluation.cutoffs[-1]}",
            "ndcg": {"current": study.trials[0].mean, "proposed": best.mean},
            "gain": gain.mean,
            "interval": [gain.lower, gain.upper],
            "users": users,
            "days": plan.days,
            "trials": len(study.trials),
            "complete": len(scores),
            "settings": changed,
            "configured": configured,
        }
        storage.write_json(paths.study(day, PROPOSAL), proposal)
        if proposal["better"]:
            log.info("for recsys.yaml:\n%s", yaml.safe_dump(changed, sort_keys=False))
        else:
            log.info(
                "nothing is proposed: no trial is better than the current settings "
                "with 95 % confidence"
            )
        figures = ("better", "trial", "gain", "interval", "users", "trials", "complete")
        return {key: proposal[key] for key in figures}
