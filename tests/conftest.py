"""Real servers for the suite, started once a session out of Python packages."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from recsys_ops.demo import services
from recsys_ops.storage import Storage

_numbers = itertools.count()


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
