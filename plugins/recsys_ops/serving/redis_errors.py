"""Redis' errors, explained to the person on duty."""

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

AnyRedisClient = redis.Redis | redis.RedisCluster | redis.asyncio.Redis | redis.asyncio.RedisCluster
# all that redis-py raises: RedisClusterException is no RedisError
REDIS_ERRORS = (redis.RedisError, RedisClusterException)


@contextmanager
def explained_errors(client: AnyRedisClient, action: str) -> Iterator[None]:
    """Turn an error of Redis into a ServingError: which action failed, where, and the next step."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise ServingError(
            f"{action} failed on Redis {server_name(client)}: "
            f"{explain_redis_error(error)} ({error})"
        ) from error


def server_name(client: AnyRedisClient) -> str:
    """Host and port, a socket, the name of Sentinel's primary, or the nodes of a cluster."""
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return f"Cluster {', '.join(sorted(node.name for node in client.get_nodes()))}"
    pool = client.connection_pool
    arguments = pool.connection_kwargs
    return str(
        getattr(pool, "service_name", None)
        or arguments.get("path")
        or f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
    )


def explain_redis_error(error: Exception) -> str:
    """What the server refuses or lacks, and the next step."""
    # in this order: redis-py's login errors are connection errors too
    match error:
        case OutOfMemoryError():
            return (
                "it has no memory left; a publish needs memory for up to three versions, "
                "raise maxmemory and run it again"
            )
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
            return (
                "it cannot be reached in time; check the server and the Redis connection, "
                "then run it again"
            )
        case MovedError() | AskError() | TryAgainError():
            return "slots of the cluster are moving; run it again when that is done"
        case _:
            return "it refused the command; read its message"
