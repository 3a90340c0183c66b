"""The model that the lookup service loads beside Redis."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import polars as pl
import pytest
import redis
from support.lookup_service import V2, Lookup, wait_until

from recsys_ops.errors import ModelError
from recsys_ops.ingest.catalogue import write_catalogue
from recsys_ops.serving import live_model
from recsys_ops.serving.live_model import CatalogueItem, LiveModel, LiveModels, load_live_model
from recsys_ops.serving.publish import publish
from recsys_ops.settings import ListsSettings, Settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker import job


def test_a_new_version_is_loaded_while_the_old_one_answers(
    http: httpx.Client,
    live_redis: redis.Redis,
    api_settings: Settings,
    models: LiveModels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, release = live_model.load_live_model, threading.Event()

    def slow(storage: Storage, version: str) -> LiveModel:
        release.wait(20)
        return load(storage, version)

    monkeypatch.setattr(live_model, "load_live_model", slow)
    publish(live_redis, api_settings.serving, "v2", V2)

    meanwhile = http.post("/recommendations", json={"items": ["cup-1"]})
    detailed = http.get("/users/ann/recommendations?details=true")
    assert (meanwhile.json()["source"], meanwhile.json()["version"]) == ("fold_in", "v1")
    assert detailed.json()["version"] == "v2"
    assert [item["title"] for item in detailed.json()["items"]] == [None]
    # the body will change without a new version, so nobody may cache it
    assert ("etag" in detailed.headers, detailed.headers["cache-control"]) == (False, "no-store")
    assert http.get("/health").json() == {"version": "v2", "model": "v1"}

    release.set()
    wait_until(lambda: models.current and models.current.version == "v2")
    assert http.post("/recommendations", json={"items": ["cup-1"]}).json()["version"] == "v2"


@pytest.mark.parametrize("error", [ModelError("damaged"), ValueError("unexpected")])
def test_until_a_model_is_loaded_only_fold_in_gives_503(
    live_redis: redis.Redis,
    lookup: Lookup,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    tried = []

    def fails(_: Storage, version: str) -> LiveModel:
        tried.append(version)
        raise error

    monkeypatch.setattr(live_model, "load_live_model", fails)
    with lookup() as http:
        answers = [http.post("/recommendations", json={"items": ["cup-1"]}) for _ in range(5)]
        assert http.get("/users/ann/recommendations").status_code == 200
        assert http.get("/health").json() == {"version": "v1", "model": None}

    assert {answer.status_code for answer in answers} == {503}
    assert int(answers[0].headers["retry-after"]) > 0
    assert tried == ["v1"]  # not again before 30 s


@pytest.mark.parametrize("fails", [False, True])
def test_each_version_of_a_half_swapped_redis_is_loaded_once(
    models: LiveModels, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    load, tried = live_model.load_live_model, []

    def counted(storage: Storage, version: str) -> LiveModel:
        tried.append(version)
        if fails:
            raise ModelError("damaged")
        return load(storage, version)

    async def notice_both(times: int) -> None:
        for _ in range(times):
            for version in ("v1", "v2"):
                models.notice(version)
                await asyncio.sleep(0.002)

    monkeypatch.setattr(live_model, "load_live_model", counted)
    asyncio.run(notice_both(100))
    assert sorted(tried) == ["v1", "v2"]

    monkeypatch.setattr(live_model, "_RETRY_AFTER_S", 0)
    models._not_before.clear()  # as after 30 s
    asyncio.run(notice_both(100))
    assert {*tried[2:]} == {"v1", "v2"}


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
def test_a_model_is_loaded_as_its_job_wrote_it(
    make_job: Callable[..., Any], storage: Storage
) -> None:
    spec = make_job(
        factors=8,
        iterations=3,
        lists=ListsSettings(top_n=10, max_per_category=1, pinned_items=("item-3",)),
    )
    assert job.main(storage.url(paths.job(spec.day, "spec.json"))) == 0
    without_catalogue = load_live_model(storage, spec.version)
    categories = {f"item-{n}": str(n % 10) for n in range(160)}
    catalogue = pl.DataFrame(
        {
            "item_id": [*categories],
            "title": None,
            "category": [*categories.values()],
            "price": float("nan"),
        }
    )
    catalogue = catalogue.with_columns(pl.lit("A thing").alias("title"))
    write_catalogue(storage, spec.day, catalogue, 0, None)
    with_catalogue = load_live_model(storage, spec.version)

    assert without_catalogue.catalogue is None
    assert with_catalogue.catalogue is not None
    assert with_catalogue.catalogue["item-17"] == CatalogueItem("A thing", "7", None)
    basket = ["item-1", "item-9", "item-17"]
    uncapped = without_catalogue.fold_in.recommend(basket, 9) or []
    capped = with_catalogue.fold_in.recommend(basket, 9) or []
    assert uncapped[0] == capped[0] == "item-3"
    assert sum(int(item[5:]) % 8 == 1 for item in uncapped) >= 5  # users of the same taste
    assert not any(item.endswith("5") for item in uncapped + capped)  # not eligible
    assert len({categories[item] for item in capped}) == len(capped) == 9
