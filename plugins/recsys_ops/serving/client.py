"""A Redis client out of a connection's fields, for Airflow's tasks and for the look-up: one server, Sentinel or Cluster."""

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

import redis
import redis.asyncio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.backoff import ExponentialBackoff

from recsys_ops.errors import ServingError, SettingsError
from recsys_ops.serving.redis_errors import ERRORS, next_step

Client = redis.Redis | redis.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster


class Extra(BaseModel):
    """The extra of a Redis connection; those beginning with ``ssl`` as Airflow's Redis provider names them.

    cluster : the host is a node of a Redis Cluster
    sentinels : ``host:port`` of each; the host is then the name of the primary they watch
    sentinel_password : theirs, with the connection's own login
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: int = 0
    ssl: bool = False
    ssl_cert_reqs: str = "required"
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    cluster: bool = False
    sentinels: tuple[Annotated[str, Field(pattern=r".:\d+$")], ...] = ()
    sentinel_password: str | None = None


class Address(BaseModel):
    """A connection's fields as Airflow names them in JSON."""

    model_config = ConfigDict(frozen=True)

    host: str = "localhost"
    port: int = 6379
    login: str | None = None
    password: str | None = Field(default=None, repr=False)
    extra: Extra = Extra()


def address(name: str, fields: Mapping[str, Any]) -> Address:
    """Check a connection's fields. Raises SettingsError naming what cannot be used, never a value."""
    given = {field: value for field, value in fields.items() if value not in (None, "")}
    try:
        extra = given.get("extra", {})
        extra = json.loads(extra) if isinstance(extra, str) else extra
        given["extra"] = {key: value for key, value in extra.items() if value not in (None, "")}
    except (ValueError, AttributeError):
        raise SettingsError(
            f"connection {name} cannot be used: its extra is no JSON object"
        ) from None
    try:
        found = Address.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(
            f"connection {name} cannot be used: {problems}; extra may have {', '.join(Extra.model_fields)}"
        ) from None
    if found.extra.cluster and (found.extra.sentinels or found.extra.db):
        raise SettingsError(
            f"connection {name}: a cluster has neither sentinels nor a db; take them out of its extra"
        )
    return found


def from_environment(conn_id: str) -> Address:
    """The connection as Airflow would read it from the environment, for a machine without Airflow. Raises SettingsError."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    try:
        fields = json.loads(os.environ[variable])
    except KeyError:
        raise SettingsError(
            f'{variable} is not set: give it the connection as JSON, {{"host": "…", "port": 6379}}'
        ) from None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise SettingsError(
            f"{variable} is no JSON object; a URL cannot say all that the JSON form can"
        )
    return address(conn_id, fields)


def connect(to: Address, *, timeout_s: float = 30, retries: int = 3) -> Client:
    """A client that waits `timeout_s` for a reply, at most 5 s for a connection, and tries an outage again `retries` times.

    Raises ServingError when it is a cluster that cannot be reached.
    """
    try:
        made: Client = _connect(redis, redis.retry.Retry, to, timeout_s, retries)
    except ERRORS as error:
        raise ServingError(
            f"connecting to the cluster at {to.host}:{to.port} failed: {next_step(error)} ({error})"
        ) from error
    return made


def connect_async(to: Address, *, timeout_s: float, retries: int) -> AsyncClient:
    """The same for asyncio."""
    made: AsyncClient = _connect(redis.asyncio, redis.asyncio.retry.Retry, to, timeout_s, retries)
    return made


def _connect(module: Any, retry: Any, to: Address, timeout_s: float, retries: int) -> Any:
    extra = to.extra
    common: dict[str, Any] = {
        "username": to.login,
        "password": to.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, 5),
        "retry": retry(ExponentialBackoff(cap=2, base=0.1), retries),
    }
    if extra.ssl:
        common |= {
            name: value for name, value in extra if name.startswith("ssl") and value is not None
        }
    if extra.cluster:
        return module.RedisCluster(host=to.host, port=to.port, **common)
    common["db"] = extra.db
    if extra.sentinels:
        nodes = [
            (host, int(port))
            for host, _, port in (sentinel.rpartition(":") for sentinel in extra.sentinels)
        ]
        watch = common | {
            "db": 0,
            "password": extra.sentinel_password,
            "username": to.login if extra.sentinel_password else None,
        }
        return module.sentinel.Sentinel(nodes, sentinel_kwargs=watch, **common).master_for(to.host)
    return module.Redis(host=to.host, port=to.port, **common)
