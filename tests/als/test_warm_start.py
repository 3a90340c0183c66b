"""When a fit starts from the champion's factors, and which numbers it starts from."""

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from support.jobs import DAY, MakeJob, history, spec_url

from recsys_ops.als.factors import Factors
from recsys_ops.als.warm_start import match, warm_start
from recsys_ops.models.version import MANIFEST, evaluation_figures, load_manifest
from recsys_ops.settings import TrainingSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main
from recsys_ops.worker.training_run import may_start_from

YESTERDAY = DAY - timedelta(days=1)


def test_the_days_after_a_deployment_are_trained_from_the_champion(
    storage: Storage, make_job: MakeJob
):
    events = history()
    first = make_job(events, day=YESTERDAY)
    assert main(storage.url(paths.job(YESTERDAY, "spec.json"))) == 0
    warm = make_job(events, champion=first.version)
    assert main(spec_url(storage)) == 0
    assert load_manifest(storage, first.version).started_from is None
    assert load_manifest(storage, warm.version).started_from == first.version

    cold = make_job(events, champion=first.version, cold_every_days=1)
    assert main(spec_url(storage)) == 0
    assert load_manifest(storage, cold.version).started_from is None
    scores = [evaluation_figures(storage, spec)["challenger"]["ndcg@20"] for spec in (warm, cold)]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_the_same_warm_job_gives_the_same_bytes(storage: Storage, make_job: MakeJob):
    events = history()
    first = make_job(events, day=YESTERDAY)
    assert main(storage.url(paths.job(YESTERDAY, "spec.json"))) == 0
    spec = make_job(events, champion=first.version)
    files = []
    for _ in range(2):
        assert main(spec_url(storage)) == 0
        files.append(load_manifest(storage, spec.version).files)
        storage.delete(paths.model(spec.version, MANIFEST))
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("changed", "days", "warm"),
    [
        ({}, 1, True),
        ({}, 6, True),
        ({}, 7, False),
        ({"cold_every_days": 8}, 7, True),
        ({"cold_every_days": 1}, 1, False),
    ],
)
def test_a_week_after_a_cold_fit_the_next_is_cold(
    changed: dict[str, Any], days: int, warm: bool, storage: Storage, make_job: MakeJob
):
    before = DAY - timedelta(days=days)
    first = make_job(day=before, iterations=1, **changed)
    assert main(storage.url(paths.job(before, "spec.json"))) == 0
    assert (
        may_start_from(load_manifest(storage, first.version), make_job(iterations=1, **changed))
        is warm
    )


def test_cold_every_days_counts_from_the_last_cold_fit(storage: Storage, make_job: MakeJob):
    champion, cold = None, []
    for day in (DAY - timedelta(days=n) for n in range(5, -1, -1)):
        champion = make_job(day=day, iterations=1, cold_every_days=3, champion=champion).version
        assert main(storage.url(paths.job(day, "spec.json"))) == 0
        cold.append(load_manifest(storage, champion).started_from is None)
    assert cold == [True, False, False, True, False, False]


def test_a_champion_of_other_settings_is_not_started_from(storage: Storage, make_job: MakeJob):
    first = make_job(day=YESTERDAY, iterations=1)
    assert main(storage.url(paths.job(YESTERDAY, "spec.json"))) == 0
    champion = load_manifest(storage, first.version)
    same = make_job(iterations=1)
    assert may_start_from(champion, same)
    assert not may_start_from(champion, make_job(iterations=1, factors=32))
    other = same.model_copy(
        update={"confidence": same.confidence.model_copy(update={"alpha": 3.0})}
    )
    assert not may_start_from(champion, other)


def test_unknown_users_and_items_start_from_small_numbers():
    champion = Factors(np.full((2, 4), 5, np.float32), np.full((2, 4), 7, np.float32))
    matched = match(
        champion,
        pl.Series(["ann", "bob"]),
        pl.Series(["cup", "pot"]),
        pl.Series(["bob", "cid"]),
        pl.Series(["lid", "pot"]),
    )
    start = warm_start(matched, TrainingSettings(factors=4))
    assert (start.user[0] == 5).all()
    assert (start.item[1] == 7).all()
    for unknown in (start.user[1], start.item[0]):
        assert 0 < unknown.max() < 0.01
