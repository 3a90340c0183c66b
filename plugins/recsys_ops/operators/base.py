"""What every operator shares: the day, the stores behind the connections, and which errors are worth a retry."""

import logging
import time
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Connection
from airflow.sdk.exceptions import AirflowFailException

from recsys_ops import paths, windows
from recsys_ops.errors import RecsysError, ServingError, SourceError, StorageError
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    import redis
    import sqlalchemy
    from airflow.sdk import Context

    from recsys_ops.storage import Storage

log = logging.getLogger(__name__)


class DayOperator(BaseOperator):
    """A task about one day. Subclasses write `run`, which returns the day's figures: counts, never rows.

    The figures go to the log, to XCom and to ``reports/day=…/<task>.json``. What a store answers with (database, storage,
    Redis) is retried; any other error of ours says something a retry cannot mend and fails the task at once.
    """

    template_fields: Sequence[str] = ("day",)

    def __init__(self, *, day: str = "{{ macros.recsys_ops.run_day(dag_run, params) }}", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.day = day

    @property
    def name(self) -> str:
        """The task's id without its groups'."""
        return self.task_id.rpartition(".")[2]

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        raise NotImplementedError

    def execute(self, context: "Context") -> dict[str, Any]:
        started = time.perf_counter()
        try:
            settings, day = load_settings(), date.fromisoformat(self.day)
            windows.check_over(day, context["dag_run"])
            figures = self.run(day, settings, context)
            seconds = round(time.perf_counter() - started, 2)
            storage(settings).write_json(paths.report(self.name, day), {**figures, "seconds": seconds})
        except (SourceError, StorageError, ServingError):
            raise
        except RecsysError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        log.info("day=%s %s %.1f s", self.day, " ".join(f"{name}={_in_words(value)}" for name, value in figures.items()), seconds)
        return figures


def _in_words(value: Any) -> str:
    """A figure as a line of the log shows it: ``1,204``, ``(crawler 1,204, bot 88)``."""
    match value:
        case dict():
            return f"({', '.join(f'{name} {_in_words(inner)}' for name, inner in value.items())})"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def storage(settings: Settings) -> "Storage":
    from recsys_ops.storage import Storage

    return Storage(settings.storage.root, storage_options(settings))


def storage_options(settings: Settings) -> dict[str, str]:
    """object_store's keys for the storage account: the connection's login and password, none for a folder."""
    if settings.storage.root.startswith("file:"):
        return {}
    connection = Connection.get(settings.storage.conn_id)
    keys = {"account_name": connection.login, "account_key": connection.password}
    return {name: value for name, value in keys.items() if value}


def database_url(settings: Settings) -> "sqlalchemy.URL":
    from recsys_ops.source import database

    connection = Connection.get(settings.source.conn_id)
    return database.url(
        connection.conn_type,
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
    )


def redis_client(settings: Settings) -> "redis.Redis":
    import redis

    connection = Connection.get(settings.serving.conn_id)
    return redis.Redis(
        host=connection.host or "localhost",
        port=connection.port or 6379,
        username=connection.login,
        password=connection.password,
        db=connection.extra_dejson.get("db", 0),
        ssl=connection.extra_dejson.get("ssl", False),
        socket_timeout=30,
        socket_connect_timeout=5,
    )
