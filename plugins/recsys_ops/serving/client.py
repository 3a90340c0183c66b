"""A Redis client from the fields of a connection: one server, Sentinel or Cluster."""

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

import redis
import redis.asyncio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.backoff import ExponentialBackoff

from recsys_ops.errors import ServingError, SettingsError
from recsys_ops.serving.redis_errors import REDIS_ERRORS, explain_redis_error

RedisClient = redis.Redis | redis.RedisCluster
AsyncRedisClient = redis.asyncio.Redis | redis.asyncio.RedisCluster


class RedisExtra(BaseModel):
    """The extra of a Redis connection.

    ssl… : named as in Airflow's Redis provider
    cluster : whether the host is a node of a Redis Cluster
    sentinels : ``host:port`` of each; the connection's host is then the name of the primary
    sentinel_password : of the Sentinels; their login is the connection's
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


class RedisAddress(BaseModel):
    """The fields of a Redis connection, named as in Airflow's JSON."""

    model_config = ConfigDict(frozen=True)

    host: str = "localhost"
    port: int = 6379
    login: str | None = None
    password: str | None = Field(default=None, repr=False)
    extra: RedisExtra = RedisExtra()


def parse_address(name: str, fields: Mapping[str, Any]) -> RedisAddress:
    """Check the fields of a connection.

    name : of the connection, for error messages
    fields : those that are None or empty count as absent

    Raises SettingsError naming the fields that cannot be used, never their values.
    """
    present = {field: value for field, value in fields.items() if value not in (None, "")}
    try:
        extra = present.get("extra", {})
        extra = json.loads(extra) if isinstance(extra, str) else extra
        present["extra"] = {key: value for key, value in extra.items() if value not in (None, "")}
    except (ValueError, AttributeError):
        raise SettingsError(
            f"connection {name} cannot be used: its extra is no JSON object"
        ) from None
    try:
        address = RedisAddress.model_validate(present)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise SettingsError(
            f"connection {name} cannot be used: {problems}; "
            f"extra may have {', '.join(RedisExtra.model_fields)}"
        ) from None
    if address.extra.cluster and (address.extra.sentinels or address.extra.db):
        raise SettingsError(
            f"connection {name}: a cluster has neither sentinels nor a db; "
            "remove them from its extra"
        )
    return address


def address_from_environment(conn_id: str) -> RedisAddress:
    """The connection from the environment, as Airflow would read it. It needs no Airflow.

    Raises SettingsError.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    try:
        fields = json.loads(os.environ[variable])
    except KeyError:
        raise SettingsError(
            f"{variable} is not set: set it to the connection as JSON, "
            '{"host": "…", "port": 6379}'
        ) from None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise SettingsError(
            f"{variable} is no JSON object: set it to the connection as JSON, not as a URL"
        )
    return parse_address(conn_id, fields)


def connect_redis(address: RedisAddress, *, timeout_s: float = 30, retries: int = 3) -> RedisClient:
    """A Redis client.

    timeout_s : for a reply; for a connection at most 5 s
    retries : of a command when the server cannot be reached

    Raises ServingError when a cluster cannot be reached. One server is not contacted yet.
    """
    try:
        client: RedisClient = _connect(redis, redis.retry.Retry, address, timeout_s, retries)
    except REDIS_ERRORS as error:
        raise ServingError(
            f"connecting to the cluster at {address.host}:{address.port} failed: "
            f"{explain_redis_error(error)} ({error})"
        ) from error
    return client


def connect_redis_async(
    address: RedisAddress, *, timeout_s: float, retries: int
) -> AsyncRedisClient:
    """`connect_redis` for asyncio. Nothing is contacted yet."""
    client: AsyncRedisClient = _connect(
        redis.asyncio, redis.asyncio.retry.Retry, address, timeout_s, retries
    )
    return client


def _connect(module: Any, retry: Any, address: RedisAddress, timeout_s: float, retries: int) -> Any:
    extra = address.extra
    common: dict[str, Any] = {
        "username": address.login,
        "password": address.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, 5),
        "retry": retry(ExponentialBackoff(cap=2, base=0.1), retries),
    }
    if extra.ssl:
        common |= {
            name: value for name, value in extra if name.startswith("ssl") and value is not None
        }
    if extra.cluster:
        return module.RedisCluster(host=address.host, port=address.port, **common)
    common["db"] = extra.db
    if extra.sentinels:
        sentinels = [
            (host, int(port))
            for host, _, port in (sentinel.rpartition(":") for sentinel in extra.sentinels)
        ]
        sentinel_arguments = common | {
            "db": 0,
            "password": extra.sentinel_password,
            "username": address.login if extra.sentinel_password else None,
        }
        sentinel = module.sentinel.Sentinel(sentinels, sentinel_kwargs=sentinel_arguments, **common)
        return sentinel.master_for(address.host)
    return module.Redis(host=address.host, port=address.port, **common)
