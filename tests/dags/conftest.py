"""A real Airflow on the demo shop, started once for all tests that need a scheduler."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from recsys_ops.demo import airflow_site, load, services, shop

DAYS = 14


@pytest.fixture(scope="session")
def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="session")
def site(
    postgres_server: sa.URL, redis_url: str, tmp_path_factory: pytest.TempPathFactory, yesterday: date
) -> Iterator[SimpleNamespace]:
    """Airflow with both DAGs unpaused on a small shop of 14 days; `.env` is its environment, `.home` its folder."""
    home = tmp_path_factory.mktemp("airflow")
    database = services.create_database(postgres_server, "site")
    engine = sa.create_engine(database)
    small = shop.Shop(shop.ShopSize(users=800, items=300, events_per_day=3000), yesterday - timedelta(days=DAYS - 1))
    load.create_schema(engine)
    for n in range(DAYS):
        load.load_day(engine, small, small.opens + timedelta(days=n))
    engine.dispose()
    redis_port = int(redis_url.rpartition(":")[2].split("/")[0])
    metadata = services.create_database(postgres_server, "airflow")
    env = airflow_site.environment(home, metadata=metadata, shop=database, redis_port=redis_port, port=services.free_port()) | {
        "RECSYS_GATE__ALLOW_FIRST_DEPLOYMENT": "true",
        "RECSYS_GATE__MIN_USERS": "5",
        "RECSYS_GATE__MAX_DROP": "0.5",
        "RECSYS_SERVING__PREFIX": "site",
        "RECSYS_TEST_REDIS_PORT": str(redis_port),
        "RECSYS_TRAINING__FACTORS": "32",
    }
    with airflow_site.standalone(env) as running:
        yield SimpleNamespace(airflow=running, env=env, home=home)
