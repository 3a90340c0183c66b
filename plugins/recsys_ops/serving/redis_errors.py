"""What Redis' errors mean to the person on duty."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)

from recsys_ops.errors import ServingError

AnyClient = redis.Redis | redis.RedisCluster | redis.asyncio.Redis | redis.asyncio.RedisCluster
# what redis-py raises: the second is none of the first
ERRORS = (redis.RedisError, RedisClusterException)


@contextmanager
def explained_errors(client: AnyClient, doing: str) -> Iterator[None]:
    """Turn Redis' errors into a ServingError: what was being done, where, and the next step."""
    try:
        yield
    except ERRORS as error:
        raise ServingError(
            f"{doing} failed on Redis {server_name(client)}: {next_step(error)} ({error})"
        ) from error


def server_name(client: AnyClient) -> str:
    """Where it is: host and port, a socket, the primary's name behind Sentinel, or a cluster's nodes."""
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return f"Cluster {', '.join(sorted(node.name for node in client.get_nodes()))}"
    pool = client.connection_pool
    at = pool.connection_kwargs
    return str(
        getattr(pool, "service_name", None)
        or at.get("path")
        or f"{at.get('host', 'localhost')}:{at.get('port', 6379)}"
    )


def next_step(error: Exception) -> str:
    # in this order: redis-py's login errors are connection errors too
    match error:
        case OutOfMemoryError():
            return "it has no memory left; a publish holds up to three versions for a moment, raise maxmemory and run it again"
        case ReadOnlyError():
            return "it is a read-only replica; let the Redis connection point to the primary"
        case AuthenticationError() | AuthorizationError() | NoPermissionError():
            return "it refuses the login; check user, password and rights in the Redis connection"
        case (
            redis.ConnectionError()
            | redis.TimeoutError()
            | RedisClusterException()
            | ClusterDownError()
        ):
            return "it cannot be reached in time; check the server and the Redis connection, then run it again"
        case MovedError() | AskError() | TryAgainError():
            return "slots of the cluster are moving; run it again when that is done"
        case _:
            return "it refused the command; see its own words"
