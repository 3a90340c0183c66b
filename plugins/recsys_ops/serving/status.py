"""What Redis holds, for the person who looks."""

from typing import Any

from recsys_ops.serving.client import Client
from recsys_ops.serving.layout import live_key, next_key, previous_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import bucket_versions
from recsys_ops.serving.redis_errors import explained_errors
from recsys_ops.settings import ServingSettings


def redis_status(client: Client, settings: ServingSettings) -> dict[str, Any]:
    """What Redis holds: buckets by version for live, previous and next, fields of the live buckets, memory of each server."""
    fields, servers = 0, []
    with explained_errors(client, "asking for its memory and counting fields"):
        for shard in find_nodes(client, settings):
            pipe = shard.client.pipeline(transaction=False)
            for bucket in shard.buckets:
                pipe.hlen(live_key(settings, bucket))
            fields += sum(pipe.execute())
            memory = shard.client.info("memory")
            named = {
                name: memory[name] for name in ("used_memory", "maxmemory", "maxmemory_policy")
            }
            servers.append({"server": shard.name, "buckets": len(shard.buckets), **named})
    keys = {"live": live_key, "previous": previous_key, "next": next_key}
    return {
        "prefix": settings.prefix,
        "buckets": settings.buckets,
        "fields": fields,
        "versions": {
            name: {
                version or "nothing": count
                for version, count in bucket_versions(client, settings, key).items()
            }
            for name, key in keys.items()
        },
        "servers": servers,
    }
