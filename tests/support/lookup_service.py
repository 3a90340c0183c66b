"""The lookup service on a port of its own, and the two versions that its tests publish."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import numpy as np
import polars as pl
import uvicorn
from fastapi import FastAPI

from recsys_ops.als.factors import Factors
from recsys_ops.demo import services
from recsys_ops.lists.fold_in import FoldIn
from recsys_ops.serving.api import create_app
from recsys_ops.serving.client import RedisAddress, connect_redis_async
from recsys_ops.serving.live_model import CatalogueItem, LiveModel, LiveModels
from recsys_ops.serving.store import AsyncRecommendationStore
from recsys_ops.settings import ConfidenceSettings, Settings, TrainingSettings
from support.redis_lists import lists_of

# a fixture's function: it starts the service, and is a context manager of a client
Lookup = Callable[..., AbstractContextManager[httpx.Client]]
ITEMS = ["cup-1", "cup-2", "cup-3", "pan-1", "pan-2", "pan-3"]
V1 = lists_of(
    {"ann": ["cup-1", "pan-2", "pan-1"]},
    ["pan-1", "cup-1"],
    similar={"cup-1": ["cup-2", "cup-3"]},
    bought_together={"cup-1": ["pan-1"]},
    categories={"cups": ["cup-3", "cup-1"]},
    trending=["pan-3"],
)
V2 = lists_of({"ann": ["pan-3"]}, ["pan-2"])


def small_model(version: str) -> LiveModel:
    """A model of users who like either cups or pans; pan-3 is not eligible."""
    taste = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    items = pl.DataFrame(
        {"item_id": ITEMS, "eligible": [True] * 5 + [False], "popularity": np.full(6, 40.0)}
    )
    fold_in = FoldIn(
        Factors(taste, taste * np.array([[1], [0.9], [0.8]] * 2, np.float32)),
        items,
        ConfidenceSettings(),
        TrainingSettings(),
    )
    catalogue = {
        "cup-1": CatalogueItem("A cup", "cups", 3.5),
        "cup-2": CatalogueItem(None, None, None),
    }
    return LiveModel(version, fold_in, catalogue)


def lookup_app(
    settings: Settings, port: int, models: LiveModels, key: str | None, **api: Any
) -> FastAPI:
    """The app in front of the Redis on a port.

    api : settings of `serving.api`
    """
    serving = settings.serving.model_copy(
        update={"api": settings.serving.api.model_copy(update=api)}
    )
    client = connect_redis_async(
        RedisAddress(host="127.0.0.1", port=port), timeout_s=0.5, retries=1
    )
    return create_app(
        settings.model_copy(update={"serving": serving}),
        AsyncRecommendationStore(client, serving),
        models,
        key,
    )


@contextmanager
def serve(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the app, which runs in a thread on a port of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=services.free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{server.config.port}", timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
