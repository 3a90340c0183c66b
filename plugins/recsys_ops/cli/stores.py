"""The stores as the settings name them, for a person at a terminal."""

import os
from typing import TYPE_CHECKING

from recsys_ops.settings import load_settings

if TYPE_CHECKING:
    from recsys_ops.serving.client import RedisClient
    from recsys_ops.storage.objects import Storage


def configured_storage() -> "Storage":
    """Storage behind Airflow's connection. Raises SettingsError."""
    _read_airflow_database()
    from recsys_ops.connections import open_storage

    return open_storage(load_settings())


def configured_redis() -> "RedisClient":
    """Redis behind Airflow's connection. Raises SettingsError, ServingError."""
    _read_airflow_database()
    from recsys_ops.connections import open_redis

    return open_redis(load_settings())


def _read_airflow_database() -> None:
    # else Airflow looks for connections only in the environment, as in a task without a supervisor
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
