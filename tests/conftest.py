"""Real servers for the tests, from Python packages, each started once in a lane."""

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from support.azurite.server import Azurite, azurite
from support.jobs import make_job  # noqa: F401
from support.packages import install

from recsys_ops.demo import services
from recsys_ops.storage.objects import Storage

# the suite starts hundreds of Python processes: without bytecode each compiles all of Airflow anew
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Airflow writes its configuration into this folder, not into the user's home
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="recsys-tests-")

# no property's test depends on how busy the machine is
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

_numbers = itertools.count()


# The tests that take longest, first: lanes that run side by side then end together.
LONGEST = [
    "dags",
    "faults",
    "demo/test_run.py",
    "test_image.py",
    "serving/test_faults.py",
    "operators/test_mirror.py",
    "launchers/test_gce.py",
    "launchers/test_ssh.py",
    "worker/test_checkpoint.py",
    "operators/test_tune.py",
]


def lane_group(file: str) -> str:
    """What stays together in a lane: a file, or a folder whose tests share a server or a shop."""
    name = Path(file).relative_to("tests")
    shared = name.parts[0] in ("dags", "faults") and name.name != "test_policy.py"
    return name.parts[0] if shared else name.as_posix()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {group: number for number, group in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(lane_group(item.nodeid.partition("::")[0]), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Lanes take group after group; `xdist_group` of xdist 3.8 has no effect with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane_group(nodeid.partition("::")[0])

    return Lanes(config, log)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may be skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get("CI")
        and reporter
        and reporter.stats.get("skipped")
        and session.exitstatus == 0
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    # not in pytest's folder: the server runs as another user if we are root, and each new pytest
    # process closes that folder to other users
    with (
        tempfile.TemporaryDirectory(prefix="recsys-postgres-") as folder,
        services.postgres(Path(folder)) as url,
    ):
        yield url


@pytest.fixture
def database_url(postgres_server: sa.URL) -> str:
    """The SQLAlchemy URL of a fresh, empty PostgreSQL database."""
    return services.create_database(postgres_server, f"shop{next(_numbers)}").render_as_string(
        hide_password=False
    )


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.URL]:
    """A MariaDB; the system's package is installed where that is possible."""
    install("mariadbd", "mariadb-server")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(services.mariadb(tmp_path_factory.mktemp("mariadb")))
        except RuntimeError as error:
            pytest.skip(str(error))
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: sa.URL) -> sa.URL:
    """A fresh, empty MariaDB database."""
    name = f"shop{next(_numbers)}"
    with sa.create_engine(mariadb_server, poolclass=sa.NullPool).connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return mariadb_server.set(database=name)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def redis_client(redis_url: str) -> redis.Redis:
    """A client of an empty Redis."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    return client


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(params=["folder", pytest.param("azurite", marks=pytest.mark.azurite)])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    """An empty storage: a folder, and once more Azure's blob storage.

    Azure's account is in the environment, as for a worker.
    """
    if request.param == "folder":
        return Storage(f"file://{tmp_path}/blob")
    server: Azurite = request.getfixturevalue("azurite_server")
    for name, value in server.options.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name.upper()}", value)
    return Storage(f"{server.container()}/shop", server.options)
