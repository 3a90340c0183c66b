"""A real Airflow on the demo shop, started once for all tests that need a scheduler."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from support.ssh_machine import machine

from recsys_ops.demo import airflow_site, load, services, shop
from recsys_ops.models.deployments import list_deployments
from recsys_ops.settings import include_dir
from recsys_ops.storage.objects import Storage

DAYS = 14


@pytest.fixture(scope="session")
def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="session")
def due() -> date:
    """The day that the last scheduled run ingests: runs start at 02:00."""
    return (datetime.now(UTC) - timedelta(hours=2)).date() - timedelta(days=1)


@pytest.fixture(scope="session")
def site(
    postgres_server: sa.URL,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    yesterday: date,
) -> Iterator[SimpleNamespace]:
    """Airflow on a small shop of 14 days; it trains on `.machine` by SSH, or here without root.

    `.airflow` is its REST API, `.env` its environment, `.home` its folder and `.include` the folder
    of its settings.

    Slow: Airflow migrates a database and starts four processes.
    """
    home = tmp_path_factory.mktemp("airflow")
    include = shutil.copytree(include_dir(), home / "include")
    database = services.create_database(postgres_server, "site")
    engine = sa.create_engine(database)
    small = shop.Shop(
        shop.ShopSize(users=800, items=300, events_per_day=3000),
        yesterday - timedelta(days=DAYS - 1),
    )
    load.create_schema(engine)
    for n in range(DAYS):
        load.load_day(engine, small, small.opens + timedelta(days=n))
    engine.dispose()
    redis_port = int(redis_url.rpartition(":")[2].split("/")[0])
    metadata = services.create_database(postgres_server, "airflow")
    env = airflow_site.environment(
        home, metadata=metadata, shop=database, redis_port=redis_port, port=services.free_port()
    ) | {
        # the tests ask for a file to be read again; otherwise all four are read every 30 seconds
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "RECSYS_GATE__ALLOW_FIRST_DEPLOYMENT": "true",
        "RECSYS_GATE__MIN_USERS": "5",
        "RECSYS_GATE__MAX_DROP": "0.5",
        "RECSYS_SERVING__PREFIX": "site",
        "RECSYS_TEST_REDIS_PORT": str(redis_port),
        "RECSYS_TRAINING__FACTORS": "32",
        "RECSYS_TUNING__HOLDOUT_DAYS": "2",
        "RECSYS_TUNING__BATCHES": "2",
        "RECSYS_TUNING__BATCH_SIZE": "2",
        "RECSYS_TUNING__PARALLEL_TRIALS": "2",
        "RECSYS_INCLUDE": str(include),
    }
    with ExitStack() as stack:
        try:
            remote = stack.enter_context(machine(tmp_path_factory.mktemp("machine")))
            env |= {
                "RECSYS_WORKER__LAUNCHER": "ssh",
                "RECSYS_WORKER__SSH__PYTHON": remote.python,
                "AIRFLOW_CONN_RECSYS_WORKER": remote.connection(),
            }
        except RuntimeError:
            remote = None
        running = stack.enter_context(airflow_site.standalone(env))
        yield SimpleNamespace(airflow=running, env=env, home=home, include=include, machine=remote)


@pytest.fixture(scope="session")
def loaded(site: SimpleNamespace, yesterday: date) -> dict[str, str]:
    """The run ids of a first load and of the scheduled run that is due.

    Unpauses `recsys_ingest`.
    """
    site.airflow.pause("recsys_ingest", False)
    load = site.airflow.trigger(
        "recsys_ingest", day=str(yesterday - timedelta(days=1)), lookback_days=10
    )
    site.airflow.wait("recsys_ingest", load)
    scheduled = next(
        run["dag_run_id"]
        for run in site.airflow.runs("recsys_ingest")
        if run["run_type"] == "scheduled"
    )
    site.airflow.wait("recsys_ingest", scheduled)
    return {"load": load, "scheduled": scheduled}


@pytest.fixture(scope="session")
def deployed(site: SimpleNamespace, loaded: dict[str, str], yesterday: date) -> str:
    """Two retrainings: one of the day before yesterday, one that an ingest started.

    The ingest was triggered without a date. Returns its run id.
    """
    site.airflow.pause("recsys_retrain", False)
    first = site.airflow.trigger("recsys_retrain", day=str(yesterday - timedelta(days=1)))
    site.airflow.wait("recsys_retrain", first)
    ingest = site.airflow.trigger("recsys_ingest")
    site.airflow.wait("recsys_ingest", ingest)
    started = site.airflow.wait_for_runs("recsys_retrain", "asset_triggered", 1)[-1]["dag_run_id"]
    site.airflow.wait("recsys_retrain", started)
    return ingest


@pytest.fixture
def live(site: SimpleNamespace, deployed: str) -> str:
    """The version that is live once all retrainings ended: each ingest starts one."""
    for run in site.airflow.runs("recsys_retrain"):
        if run["state"] in ("queued", "running"):
            site.airflow.wait("recsys_retrain", run["dag_run_id"])
    return list_deployments(Storage(site.env["RECSYS_STORAGE__ROOT"]))[-1]["version"]
