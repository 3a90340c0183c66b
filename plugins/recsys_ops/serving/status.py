"""What Redis holds, for a person or a monitor."""

from collections.abc import Collection
from typing import Any

from recsys_ops.models.deployments import DeploymentState
from recsys_ops.serving.client import RedisClient
from recsys_ops.serving.layout import live_key, next_key, previous_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import bucket_versions
from recsys_ops.serving.redis_errors import explained_errors
from recsys_ops.settings import ServingSettings


def redis_status(client: RedisClient, settings: ServingSettings) -> dict[str, Any]:
    """What Redis holds.

    Returns ``prefix``, ``buckets``, ``fields`` (the number of fields in the live buckets),
    ``versions`` (live, previous and next: the number of buckets by version), and ``servers`` (name,
    number of buckets, memory in bytes). Raises ServingError.
    """
    fields, servers = 0, []
    nodes = find_nodes(client, settings)
    with explained_errors(client, "reading its memory and counting fields"):
        for node in nodes:
            pipe = node.client.pipeline(transaction=False)
            for bucket in node.buckets:
                pipe.hlen(live_key(settings, bucket))
            fields += sum(pipe.execute())
            memory = node.client.info("memory")
            servers.append(
                {
                    "server": node.name,
                    "buckets": len(node.buckets),
                    "used_memory": memory["used_memory"],
                    "maxmemory": memory["maxmemory"],
                    "maxmemory_policy": memory["maxmemory_policy"],
                }
            )
    keys = {"live": live_key, "previous": previous_key, "next": next_key}
    return {
        "prefix": settings.prefix,
        "buckets": settings.buckets,
        "fields": fields,
        "versions": {
            name: {
                version or "nothing": count
                for version, count in bucket_versions(nodes, key).items()
            }
            for name, key in keys.items()
        },
        "servers": servers,
    }


def describe_difference(live: Collection[str], recorded: DeploymentState) -> str | None:
    """What Redis and the record of deployments say differently, and what to do; None if nothing.

    live : the versions of the live buckets, `nothing` for those without one
    """
    last = recorded["deployments"][-1]["version"] if recorded["deployments"] else "nothing"
    if {*live} == {last}:
        return None
    versions = ", ".join(sorted(live))
    if (swapping := recorded["swapping"]) and swapping["version"] in live:
        return (
            f"{versions} is live, but {last} is recorded, because the swap to "
            f"{swapping['version']} was cut short: clear refresh_redis of its run, or roll back"
        )
    return (
        f"{versions} is live, but {last} is recorded: Redis was emptied, restored or written to "
        f"by others; clear refresh_redis of the run that made {last}, or roll back"
    )
