"""A study from its first trial to its proposal, and how a proposal is adopted.

The jobs run in this process.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from support.jobs import history as tastes

from recsys_ops.errors import ModelError, RecsysError, StorageError, WorkerError
from recsys_ops.history.table import replace_days
from recsys_ops.ingest.catalogue import write_catalogue
from recsys_ops.launchers.base import Job, JobStatus
from recsys_ops.models.spec import read_spec
from recsys_ops.operators import train_on_worker
from recsys_ops.operators.ask import AskOperator
from recsys_ops.operators.build_matrix import BuildMatrixOperator
from recsys_ops.operators.propose import ProposeOperator
from recsys_ops.operators.tell import TellOperator
from recsys_ops.operators.trial import TrialOperator
from recsys_ops.settings import Settings, load_settings, settings_file
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.tuning.proposal import record_first_use, with_adopted_proposal
from recsys_ops.tuning.records import open_trial_storage, read_study
from recsys_ops.worker.job import main

DAY = date(2026, 3, 10)
TUNING = {
    "holdout_days": 2,
    "batches": 2,
    "batch_size": 2,
    "search": {
        "training.factors": {"low": 8, "high": 16},
        "training.iterations": {"low": 4, "high": 6},
    },
}


class InThisProcess:
    """A launcher that runs a job when it is started.

    error_for : gives the error to raise for a spec's URL instead of running the job
    """

    place = "this process"

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.error_for: Callable[[str], RecsysError | None] = lambda url: None

    def find(self, job: Job) -> str | None:
        return None

    def start(self, job: Job) -> str:
        self.jobs.append(job.spec_url)
        if error := self.error_for(job.spec_url):
            raise error
        main(job.spec_url)
        return job.name

    def status(self, job_id: str) -> JobStatus:
        return "succeeded"

    def wait(self, job: Job, job_id: str, tell: Callable[[str], None]) -> None: ...

    def cancel(self, job_id: str) -> None: ...

    def page(self, job_id: str) -> str | None:
        return None


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A storage with 15 days of history; a study has two batches of two trials on two days."""
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", f"file://{tmp_path}/blob")
    (tmp_path / "recsys.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(settings_file().read_text()) | {"tuning": TUNING})
    )
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    monkeypatch.setenv("RECSYS_CONFIDENCE__WINDOW_DAYS", "30")
    load_settings.cache_clear()
    storage = Storage(f"file://{tmp_path}/blob")
    events = tastes(last=DAY).with_row_index("n")
    noon = pl.col("day").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=12)
    rows = events.select(
        *("day", "user_id", "item_id", "event_type"),
        event_id=pl.format("e{}", "n"),
        event_time=noon,
        recorded_at=noon,
        quantity=pl.lit(1),
        value=pl.lit(None, pl.Float64),
    )
    replace_days(storage, rows.drop("day"), DAY - timedelta(days=14), DAY)
    yield storage
    load_settings.cache_clear()


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    in_this_process = InThisProcess()
    monkeypatch.setattr(train_on_worker, "open_launcher", lambda settings: in_this_process)
    return in_this_process


def run(operator: Any) -> dict[str, Any]:
    figures: dict[str, Any] = operator.run(DAY, load_settings(), {})
    return figures


def ask(batch: int) -> list[int]:
    return [trial["number"] for trial in run(AskOperator(task_id="ask", batch=batch))["trials"]]


def trial(number: int) -> dict[str, Any]:
    return run(TrialOperator(task_id="trial", number=number))


def tell(batch: int) -> dict[str, Any]:
    return run(TellOperator(task_id="tell", batch=batch))


def propose() -> dict[str, Any]:
    return run(ProposeOperator(task_id="propose"))


def test_a_study_from_its_first_trial_to_its_proposal(
    store: Storage,
    launcher: InThisProcess,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECSYS_TRAINING__FACTORS", "1")
    monkeypatch.setenv("RECSYS_TRAINING__ITERATIONS", "1")
    load_settings.cache_clear()
    for batch in (1, 2):
        for number in ask(batch):
            figures = trial(number)
            assert figures["trial"].startswith(f"{number}: ")
        assert set(tell(batch)["states"].values()) <= {"complete", "pruned"}
    assert len(launcher.jobs) == len(set(launcher.jobs)) == 8
    study = read_study(store, DAY)
    assert study.plan.days == (DAY, DAY - timedelta(days=1))
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    own = open_trial_storage(store, DAY, 1)
    assert {path.rpartition("/")[2] for path in own.list("jobs")} == {
        "spec.json",
        "result.json",
        "worker.log",
        "ndcg.npz",
    }
    ndcg = serialization.to_arrays(own.get(paths.job(DAY, "ndcg.npz")))["ndcg"]
    assert ndcg.mean() == pytest.approx(study.trials[1].values[0])
    assert store.list("models") == own.list("models") == []

    caplog.set_level(logging.INFO)
    propose()
    proposal = store.read_json(paths.study(DAY, "proposal.json"))
    best = study.trials[proposal["trial"]]
    assert (
        best.mean
        == max(trial.mean or 0 for trial in study.trials)
        == pytest.approx(proposal["ndcg"]["proposed"])
    )
    assert proposal["gain"] == pytest.approx(
        proposal["ndcg"]["proposed"] - proposal["ndcg"]["current"]
    )
    assert proposal["better"]
    assert proposal["interval"][0] < proposal["gain"] < proposal["interval"][1]
    assert proposal["settings"] == {
        "training": {name.partition(".")[2]: value for name, value in best.params.items()}
    }
    assert f"training:\n  factors: {best.params['training.factors']}" in caplog.text


def test_a_trial_has_a_storage_of_its_own(storage: Storage) -> None:
    own = open_trial_storage(storage, DAY, 3)
    own.put("jobs/spec.json", b"{}")
    assert storage.get(paths.trial(DAY, 3, "jobs/spec.json")) == own.get(own.list("")[0]) == b"{}"
    assert main(own.url(paths.job(DAY, "spec.json"))) == 1
    assert "is not there" in own.read_json(paths.job(DAY, "result.json"))["reason"]


def test_the_scores_of_a_staged_trial_are_fetched(
    store: Storage, launcher: InThisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_WORKER__STAGING_URL", f"file://{tmp_path}/staging")
    load_settings.cache_clear()
    ask(1)
    assert len(trial(0)["values"]) == 2
    assert all("/staging/recsys-" in url for url in launcher.jobs)
    assert open_trial_storage(store, DAY, 0).exists(paths.job(DAY, "ndcg.npz"))
    assert Storage(f"file://{tmp_path}/staging").list("") == []


def test_a_cleared_run_uses_the_results_that_exist(store: Storage, launcher: InThisProcess) -> None:
    assert ask(1) == [0, 1]
    launcher.error_for = lambda url: (
        WorkerError("the machine was taken away")
        if str(DAY - timedelta(days=1)) in url[-25:]
        else None
    )
    with pytest.raises(WorkerError):
        trial(1)
    asked = read_study(store, DAY)
    launcher.error_for = lambda url: None
    assert ask(1) == [0, 1]
    assert read_study(store, DAY) == asked
    tried = len(launcher.jobs)
    first = trial(1)
    assert [url[-20:-10] for url in launcher.jobs[tried:]] == [str(DAY - timedelta(days=1))]
    assert (trial(1), len(launcher.jobs)) == (first, tried + 1)


def test_failed_trials_are_recorded_and_the_study_goes_on(
    store: Storage, launcher: InThisProcess
) -> None:
    ask(1)
    launcher.error_for = lambda url: (
        ModelError("the factors are not finite") if "/trials/1/" in url else None
    )
    trial(0)
    with pytest.raises(ModelError):
        trial(1)
    assert tell(1)["states"] == {"0": "complete", "1": "failed"}
    for number in ask(2):
        trial(number)
    tell(2)
    assert propose()["complete"] >= 1
    assert store.list(paths.trial(DAY, 1, "jobs/day=2026-03-10/train")) == []


@pytest.mark.parametrize(
    ("scored", "words"), [([], "no trial of batch 1"), ([1], "trial 0, the current settings")]
)
def test_a_batch_without_anything_to_compare_with_fails(
    scored: list[int], words: str, store: Storage, launcher: InThisProcess
) -> None:
    ask(1)
    for number in scored:
        trial(number)
    with pytest.raises(ModelError, match=words):
        tell(1)


def test_a_trial_that_falls_behind_is_ended_early(store: Storage, launcher: InThisProcess) -> None:
    ask(1)
    study = read_study(store, DAY).model_dump(mode="json")
    good = study["trials"][0] | {"state": "complete", "values": [1.0, 1.0]}
    study["trials"] = [
        *({**good, "number": n} for n in range(3)),
        {**study["trials"][1], "number": 3, "batch": 2},
    ]
    store.write_json(paths.study(DAY, "study.json"), study)
    assert trial(3)["state"] == "pruned"
    assert len(launcher.jobs) == 1
    assert tell(2)["states"] == {"3": "pruned"}


def test_other_settings_begin_a_new_study_and_delete_older_trials(
    store: Storage, launcher: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = DAY - timedelta(days=7), DAY + timedelta(days=1)
    for day in (older, newer):
        store.write_json(paths.trial(day, 3, "outcome.json"), {})
        store.write_json(paths.study(day, "proposal.json"), {})
    ask(1)
    store.write_json(paths.study(DAY, "proposal.json"), {})
    monkeypatch.setenv("RECSYS_TRAINING__SEED", "9")
    load_settings.cache_clear()
    ask(1)
    assert store.list("tuning") == [
        paths.study(older, "proposal.json"),
        paths.study(DAY, "study.json"),
        paths.study(newer, "proposal.json"),
        paths.trial(newer, 3, "outcome.json"),
    ]


PROPOSAL = {"better": True, "settings": {"training": {"factors": 9}, "confidence": {"alpha": 3.0}}}
CONFIGURED = {
    "training.factors": 64,
    "training.iterations": 15,
    "training.regularization": 0.1,
    "training.regularization_exponent": 1.0,
    "confidence.alpha": 16.0,
    "confidence.half_life_days": 90.0,
}


@pytest.fixture
def adopts(store: Storage, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RECSYS_TUNING__ADOPT", "true")
    load_settings.cache_clear()
    return load_settings()


def proposed(store: Storage, study: date, **changes: Any) -> None:
    store.write_json(
        paths.study(study, "proposal.json"), {**PROPOSAL, "configured": CONFIGURED, **changes}
    )


def factors(store: Storage, settings: Settings, day: date) -> int:
    return with_adopted_proposal(store, settings, day)[0].training.factors


def test_the_newest_better_proposal_is_adopted_if_the_settings_say_so(
    store: Storage, adopts: Settings
) -> None:
    week = timedelta(days=7)
    assert with_adopted_proposal(store, adopts, DAY) == (adopts, None)
    proposed(store, DAY - week)
    proposed(store, DAY, better=False)
    settings, study = with_adopted_proposal(store, adopts, DAY + week)
    assert (
        settings.training.factors,
        settings.confidence.alpha,
        settings.training.seed,
        study,
    ) == (
        9,
        3.0,
        1,
        DAY - week,
    )
    assert with_adopted_proposal(store, adopts, DAY - week) == (adopts, None)
    proposed(store, DAY, settings={"training": {"factors": 11}})
    assert (factors(store, adopts, DAY), factors(store, adopts, DAY + week)) == (9, 11)
    off = adopts.model_copy(update={"tuning": adopts.tuning.model_copy(update={"adopt": False})})
    assert with_adopted_proposal(store, off, DAY + week) == (off, None)
    edited = adopts.model_copy(
        update={"training": adopts.training.model_copy(update={"factors": 128})}
    )
    assert with_adopted_proposal(store, edited, DAY + week) == (edited, None)


def test_foreign_files_among_the_studies_are_ignored(store: Storage, adopts: Settings) -> None:
    for path in ("tuning/.DS_Store", "tuning/old/proposal.json", "tuning/day=x/proposal.json"):
        store.put(path, b"x")
    proposed(store, DAY)
    assert factors(store, adopts, DAY + timedelta(days=1)) == 9
    store.put(paths.study(DAY, "proposal.json"), b"{}")
    with pytest.raises(StorageError, match=r"day=2026-\d\d-\d\d/proposal\.json is damaged"):
        with_adopted_proposal(store, adopts, DAY + timedelta(days=1))


def test_a_proposal_is_dropped_after_its_first_challenger_was_refused(
    store: Storage, adopts: Settings
) -> None:
    day = DAY + timedelta(days=1)
    proposed(store, DAY - timedelta(days=7))
    proposed(store, DAY, settings={"training": {"factors": 11}})
    for version in ("half-done", "refused"):
        record_first_use(store, DAY, day, version)
    record_first_use(store, DAY, day + timedelta(days=1), "a later one")
    assert factors(store, adopts, day + timedelta(days=1)) == 11
    store.write_json(paths.model("refused", "verdict.json"), {"blessed": False, "forced": None})
    assert [factors(store, adopts, day + timedelta(days=n)) for n in (0, 1)] == [11, 9]
    store.write_json(paths.model("refused", "verdict.json"), {"blessed": True, "forced": None})
    assert factors(store, adopts, day + timedelta(days=1)) == 11


def test_the_challenger_is_built_with_the_proposal_and_says_so(
    store: Storage, adopts: Settings
) -> None:
    study = DAY - timedelta(days=1)
    proposed(store, study)
    catalogue = {"item_id": ["item-0"], "category": "home", "status": "published", "stock": 1}
    write_catalogue(store, DAY, pl.DataFrame(catalogue), 0, None)
    figures = run(BuildMatrixOperator(task_id="build_matrix"))
    spec = read_spec(store, DAY)
    assert figures["proposal"] == str(study)
    assert (spec.training.factors, spec.confidence.alpha) == (9, 3.0)
    assert store.read_json(paths.study(study, "taken_up.json")) == {
        "day": str(DAY),
        "version": spec.version,
    }
