"""A tuning run in a real Airflow: named trials, a proposal, and a cleared trial not repeated."""

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from support.site import until

from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage


def trials(site: SimpleNamespace, run: str) -> list[dict[str, Any]]:
    found = [
        task
        for batch in (1, 2)
        for task in site.airflow.call(
            "GET", f"dags/recsys_tune/dagRuns/{run}/taskInstances/batch_{batch}.trial/listMapped"
        )["task_instances"]
    ]
    return sorted(found, key=lambda task: (task["task_id"], task["map_index"]))


def log(site: SimpleNamespace, run: str, trial: dict[str, Any]) -> str:
    task = f"dags/recsys_tune/dagRuns/{run}/taskInstances/{trial['task_id']}"
    path = f"{task}/logs/{trial['try_number']}"
    params = {"map_index": trial["map_index"]}
    return str(
        site.airflow.call("GET", path, params=params, headers={"Accept": "application/json"})
    )


@pytest.mark.timeout(600)
def test_a_weekly_study_runs_in_batches_and_repeats_no_cleared_trial(
    site: SimpleNamespace, loaded: dict[str, str], yesterday: date
) -> None:
    site.airflow.pause("recsys_tune", False)
    scheduled = site.airflow.wait_for_runs("recsys_tune", "scheduled", 1)[0]
    run, day = (
        scheduled["dag_run_id"],
        date.fromisoformat(scheduled["run_after"][:10]) - timedelta(days=1),
    )
    assert (day.strftime("%A"), yesterday - day < timedelta(days=8)) == ("Saturday", True)
    site.airflow.wait("recsys_tune", run)
    store = Storage(site.env["RECSYS_STORAGE__ROOT"])
    study = store.read_json(paths.study(day, "study.json"))
    assert [trial["state"] for trial in study["trials"]] == ["complete"] * 4
    found = trials(site, run)
    names = [trial["rendered_map_index"] for trial in found]
    assert [name.partition(":")[0] for name in names] == ["0", "1", "2", "3"]
    assert names[0].startswith("0: as they are, alpha 16, half_life_days 90, factors 32")
    assert "sweep 1 of" in log(site, run, found[3])
    proposal = store.read_json(paths.study(day, "proposal.json"))
    assert (proposal["trials"], proposal["complete"], proposal["metric"]) == (4, 4, "ndcg@20")
    assert not [path for path in store.list("tuning") if path.endswith((".parquet", "train.npz"))]

    clear = {
        "dry_run": False,
        "task_ids": [["batch_2.trial", 1]],
        "dag_run_id": run,
        "only_failed": False,
    }
    clear |= {"include_downstream": True, "reset_dag_runs": True}
    site.airflow.call("POST", "dags/recsys_tune/clearTaskInstances", json=clear)
    until(lambda: trials(site, run)[3]["try_number"] != found[3]["try_number"])
    site.airflow.wait("recsys_tune", run)
    again = trials(site, run)[3]
    assert "sweep" not in log(site, run, again)
    assert store.read_json(paths.study(day, "study.json")) == study
    assert store.read_json(paths.study(day, "proposal.json")) == proposal
