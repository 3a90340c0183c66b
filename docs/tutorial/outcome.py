"""``python docs/tutorial/outcome.py``: rows by reason, models with verdicts, and seconds.

All figures come from what the runs wrote to storage.
"""

import re
from collections import Counter, defaultdict

import polars as pl

from recsys_ops.ingest.steps import STEPS
from recsys_ops.settings import load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage


def main() -> None:
    storage = Storage(load_settings().storage.root)
    reports: dict[str, dict[str, dict]] = defaultdict(dict)
    for path in storage.list("reports"):
        day, task = re.fullmatch(r"reports/day=(.+)/(.+)\.json", path).groups()
        reports[task][day] = storage.read_json(path)

    print("rows by step and reason, all runs together")
    for step in STEPS:
        runs = reports[step].values()
        reasons = sum((Counter(run["reasons"]) for run in runs), Counter())
        total = {name: sum(run[name] for run in runs) for name in ("rows_in", "kept", "rejected")}
        counts = {**total, **dict(reasons.most_common())}
        print(f"  {step:16}", *(f"{name} {count:,}" for name, count in counts.items()))

    print(
        "models: users evaluated, NDCG@20 of the model, the live model and popularity; "
        "lower bound of the gain over popularity; verdict"
    )
    for path in storage.list("models"):
        if path.endswith("verdict.json"):
            verdict = storage.read_json(path)
            metrics = storage.read_json(paths.model(verdict["version"], "metrics.json"))
            scores = [
                metrics[name] and metrics[name]["ndcg@20"]
                for name in ("challenger", "champion", "popularity")
            ]
            shown = " ".join("  -   " if score is None else f"{score:.4f}" for score in scores)
            bound = metrics["bootstrap"]["popularity"]["lower"]
            sentence = verdict["summary"].partition(";")[0]
            print(f"  {verdict['version']} {metrics['users']:4} {shown} {bound:+.4f} {sentence}")

    print("seconds of each task, median of its runs")
    for task, runs in reports.items():
        median = pl.Series([run["seconds"] for run in runs.values()]).median()
        print(f"  {task:18} {median:6.2f}  ({len(runs)} runs)")


if __name__ == "__main__":
    main()
