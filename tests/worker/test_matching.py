"""When a fit goes on from the champion's factors, and from what numbers."""

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_ops import paths
from recsys_ops.als.factors import Factors
from recsys_ops.settings import TrainingSettings
from recsys_ops.storage import Storage
from recsys_ops.worker import model
from recsys_ops.worker.job import main
from recsys_ops.worker.matching import match, may_start_from, warm_start

from .conftest import DAY, history
from .test_job import MakeJob, spec_url

YESTERDAY = DAY - timedelta(days=1)


def test_the_days_after_a_deployment_are_trained_from_the_champion(storage: Storage, make_job: MakeJob):
    events = history()
    first = make_job(events, day=YESTERDAY)
    assert main(storage.url(paths.job(YESTERDAY, "spec.json"))) == 0
    warm = make_job(events, champion=first.version)
    assert main(spec_url(storage)) == 0
    assert model.load_manifest(storage, first.version).started_from is None
    assert model.load_manifest(storage, warm.version).started_from == first.version

    cold = make_job(events, champion=first.version, cold_every_days=1)
    assert main(spec_url(storage)) == 0
    assert model.load_manifest(storage, cold.version).started_from is None
    scores = [model.measure(storage, version, draws=50)["challenger"]["ndcg@20"] for version in (warm.version, cold.version)]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_the_same_warm_job_gives_the_same_bytes(storage: Storage, make_job: MakeJob):
    events = history()
    first = make_job(events, day=YESTERDAY)
    assert main(storage.url(paths.job(YESTERDAY, "spec.json"))) == 0
    spec = make_job(events, champion=first.version)
    found = []
    for _ in range(2):
        assert main(spec_url(storage)) == 0
        found.append(storage.get(paths.model(spec.version, model.MANIFEST)))  # it has the sum of every file
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changed", "days", "warm"),
    [
        ({}, 1, True),
        ({}, 6, True),
        ({}, 7, False),  # the champion is older than a week
        ({"factors": 32}, 1, False),
        ({"regularization": 20.0}, 1, False),
        ({"cold_every_days": 1}, 1, False),
    ],
)
def test_a_champion_of_other_settings_or_another_week_is_not_started_from(
    changed: dict[str, Any], days: int, warm: bool, make_job: MakeJob
):
    champion = make_job(
        day=DAY - timedelta(days=days), **{key: value for key, value in changed.items() if key == "cold_every_days"}
    )
    assert may_start_from(champion, make_job(**changed)) is warm


def test_other_confidence_settings_are_not_started_from(make_job: MakeJob):
    champion, spec = make_job(day=YESTERDAY), make_job()
    other = champion.model_copy(update={"confidence": champion.confidence.model_copy(update={"alpha": 3.0})})
    assert may_start_from(champion, spec)
    assert not may_start_from(other, spec)


def test_one_day_of_every_week_is_trained_cold(make_job: MakeJob):
    days = [DAY + timedelta(days=n) for n in range(14)]
    events = history(last=days[-1], days=30)
    cold = [not may_start_from(make_job(events, day=day - timedelta(days=1)), make_job(events, day=day)) for day in days]
    assert sum(cold) == 2
    assert cold[:7] == cold[7:]


def test_unknown_users_and_items_start_from_small_numbers_and_the_others_from_the_champion_s():
    theirs = Factors(np.full((2, 4), 5, np.float32), np.full((2, 4), 7, np.float32))
    matched = match(
        theirs, pl.Series(["ann", "bob"]), pl.Series(["cup", "pot"]), pl.Series(["bob", "cid"]), pl.Series(["lid", "pot"])
    )
    start = warm_start(matched, TrainingSettings(factors=4))
    assert (start.user[0] == 5).all()
    assert (start.item[1] == 7).all()
    for fresh in (start.user[1], start.item[0]):
        assert 0 < fresh.max() < 0.01
