"""``python docs/tutorial/try_settings.py DAY…``: compare settings on days of the history.

Prints a table with the mean NDCG@20 of each combination.
"""

import sys
from datetime import date

import polars as pl

from recsys_ops.als.fit import fit
from recsys_ops.evaluation.compare import compare_models
from recsys_ops.history.table import current_version, read_events
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.lists.build import evaluation_lists
from recsys_ops.settings import Settings, load_settings
from recsys_ops.storage.objects import Storage

# half-life in days, factors, regularization and its exponent
TRIALS = [
    (90, 64, 0.06, 1),
    (90, 128, 0.06, 1),
    (60, 128, 0.06, 1),
    (30, 128, 0.06, 1),
    (15, 128, 0.06, 1),
    (30, 128, 0.18, 1),
    (30, 128, 0.06, 0),
]


def main(days: list[date]) -> None:
    """Print the mean NDCG@20 of the model and of popularity, for both values of `exclude_seen`."""
    settings = load_settings()
    storage = Storage(settings.storage.root)
    events = read_events(storage, date.min, max(days), version=current_version(storage))
    print(
        "half-life factors regularization exponent exclude_seen   model  popularity  "
        "days better than popularity"
    )
    for trial in TRIALS:
        for exclude_seen in (True, False):
            scores = [score(events, day, settings, trial, exclude_seen) for day in days]
            means = (
                sum(metrics[name]["ndcg@20"] for metrics in scores) / len(days)
                for name in ("challenger", "popularity")
            )
            better = sum(metrics["bootstrap"]["popularity"]["lower"] > 0 for metrics in scores)
            figures = "{:9} {:7} {:14} {:8} {!s:>12} {:7.3f} {:11.3f}".format(
                *trial, exclude_seen, *means
            )
            print(figures, f"{better:4} of {len(days)}")


def score(
    events: pl.DataFrame,
    day: date,
    settings: Settings,
    trial: tuple[int, int, float, int],
    exclude_seen: bool,
) -> dict:
    """The metrics of one trial's model, fitted on the days before `day` and evaluated on it."""
    half_life, factors, regularization, exponent = trial
    confidence = settings.confidence.model_copy(update={"half_life_days": half_life})
    regularized = {"regularization": regularization, "regularization_exponent": exponent}
    training = settings.training.model_copy(update={"factors": factors, **regularized})
    evaluation = settings.evaluation.model_copy(update={"exclude_seen": exclude_seen})
    data = build_interactions(events, day, confidence, evaluation)
    fitted = fit(data.train, training, iterations=training.iterations)
    lists = evaluation_lists(
        data.train, data.holdout, fitted, None, max(evaluation.cutoffs), exclude_seen
    )
    return compare_models(lists, cutoffs=evaluation.cutoffs, seed=training.seed)


if __name__ == "__main__":
    main([date.fromisoformat(day) for day in sys.argv[1:]])
