"""Real servers for the suite, started once a session out of Python packages."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from recsys_ops.demo import services
from recsys_ops.storage import Storage

# Airflow writes its configuration where it is told to, never into the home of whoever runs the tests
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="recsys-tests-")

_numbers = itertools.count()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may be skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.URL]:
    with services.postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def database_url(postgres_server: sa.URL) -> str:
    """The SQLAlchemy URL of a fresh, empty PostgreSQL database."""
    return services.create_database(postgres_server, f"shop{next(_numbers)}").render_as_string(hide_password=False)


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


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/blob")
