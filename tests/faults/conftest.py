"""A small shop in PostgreSQL, and the stores before and after each task of its first two days."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from support.azurite.server import Azurite
from support.pipeline import INGEST, RETRAIN, Pipeline, Runner, files
from support.two_days import (
    BUCKETS,
    FIRST_DAY,
    OPENS,
    SECOND_DAY,
    SHOP,
    TwoDays,
    database_connection,
    params,
    redis_connection,
)

from recsys_ops.demo import load, services, shop
from recsys_ops.storage.objects import Storage


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("airflow"))
    yield runner
    runner.stop()


@pytest.fixture(scope="session")
def shop_url(postgres_server: sa.URL) -> sa.URL:
    """The shop's database; tests must not change it."""
    url = services.create_database(postgres_server, "faults")
    engine = sa.create_engine(url)
    load.create_schema(engine)
    for days in range((SECOND_DAY - OPENS).days + 1):
        load.load_day(engine, SHOP, OPENS + timedelta(days=days))
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def settings(shop_url: sa.URL, redis_url: str) -> dict[str, str]:
    """The environment of the tasks: connections, and settings that fit the shop."""
    return {
        "AIRFLOW_CONN_RECSYS_DB": database_connection(shop_url),
        "AIRFLOW_CONN_RECSYS_REDIS": redis_connection(redis_url),
        "RECSYS_CLEANING__STAFF__EMAIL_DOMAINS": json.dumps([shop.OFFICE_DOMAIN]),
        "RECSYS_CLEANING__STAFF__NETWORKS": json.dumps([shop.OFFICE_NETWORK]),
        "RECSYS_CLEANING__STAFF__TEST_ACCOUNT_PATTERN": shop.TEST_ACCOUNTS,
        "RECSYS_TRAINING__FACTORS": "16",
        "RECSYS_TRAINING__ITERATIONS": "5",
        # these tests are about faults, not quality: views are many, and the gate blesses anything
        "RECSYS_EVALUATION__EVENTS": json.dumps(["view", "cart", "purchase"]),
        "RECSYS_GATE__MAX_DROP": "1",
        "RECSYS_GATE__MIN_USERS": "10",
        "RECSYS_GATE__ALLOW_FIRST_DEPLOYMENT": "true",
        "RECSYS_SERVING__BUCKETS": str(BUCKETS),
    }


@pytest.fixture(scope="session")
def two_days(
    runner: Runner,
    settings: dict[str, str],
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> TwoDays:
    """A first day that ingests nine days and deploys a model, and a second with a challenger.

    Slow: 28 tasks run, each in a process of its own.
    """
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    pipeline = Pipeline(runner, tmp_path_factory.mktemp("two_days") / "blob", client, settings)
    pipeline.folder.mkdir()
    copies = tmp_path_factory.mktemp("snapshots")
    two_days = TwoDays()
    for day in (FIRST_DAY, SECOND_DAY):
        for task in (*INGEST, *RETRAIN):
            two_days.before[day, task] = pipeline.snapshot(copies / f"{day} {task}")
            before = files(pipeline.folder)
            two_days.seconds[day, task] = pipeline.succeed(
                (task,), day, params=params(day, task)
            ).seconds
            two_days.written[day, task] = [
                path for path, mark in files(pipeline.folder).items() if before.get(path) != mark
            ]
            two_days.after[day, task] = pipeline.state()
    two_days.end = pipeline.snapshot(copies / "end")
    return two_days


@pytest.fixture
def pipeline(
    request: pytest.FixtureRequest,
    runner: Runner,
    settings: dict[str, str],
    redis_client: redis.Redis,
    tmp_path: Path,
) -> Pipeline:
    """The pipeline with stores of its own, which are empty until `restore`.

    The storage is a folder, or Azurite where a parameter says so.
    """
    if getattr(request, "param", "folder") == "folder":
        return Pipeline(runner, tmp_path / "blob", redis_client, settings)
    server: Azurite = request.getfixturevalue("azurite_server")
    storage = Storage(f"{server.container()}/shop", server.options)
    account = {"conn_type": "wasb", "login": server.options["account_name"], "password": server.key}
    emulator = {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": server.url}
    env = {**settings, **emulator, "AIRFLOW_CONN_RECSYS_BLOB": json.dumps(account)}
    return Pipeline(runner, tmp_path / "blob", redis_client, env, storage)
