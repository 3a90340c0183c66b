"""The servers behind a client, and which buckets each of them has."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from recsys_ops.serving.client import Client
from recsys_ops.serving.layout import live_key
from recsys_ops.serving.redis_errors import server_name
from recsys_ops.settings import ServingSettings

# of a bucket: `live_key`, `next_key` or `previous_key`
Key = Callable[[ServingSettings, int], str]

_UNLINKED_S = 5


@dataclass(frozen=True)
class Node:
    """A server, and the buckets that it has, ascending: all of them where it is the only one."""

    client: redis.Redis
    buckets: list[int]
    alone: bool

    @property
    def name(self) -> str:
        return f"Redis {server_name(self.client)}"

    def among(self, batch: range) -> list[int]:
        first, last = np.searchsorted(self.buckets, [batch.start, batch.stop])
        return self.buckets[first:last]

    def unlink(self, settings: ServingSettings, key: Key) -> None:
        pipe = self.client.pipeline(transaction=False)
        for bucket in self.buckets:
            pipe.unlink(key(settings, bucket))
        if sum(pipe.execute()):
            # it happens in the background: what the server says of its memory comes after it
            until = time.monotonic() + _UNLINKED_S
            while (
                self.client.info("memory")["lazyfree_pending_objects"] and time.monotonic() < until
            ):
                time.sleep(0.01)


def find_nodes(client: Client, settings: ServingSettings) -> list[Node]:
    """The servers that hold the buckets."""
    if not isinstance(client, redis.RedisCluster):
        return [Node(client, list(range(settings.buckets)), alone=True)]
    cluster: Any = client
    nodes = {}
    owned: dict[str, list[int]] = {}
    for bucket in range(settings.buckets):
        node = cluster.get_node_from_key(live_key(settings, bucket))
        nodes[node.name] = node
        owned.setdefault(node.name, []).append(bucket)
    return [
        Node(cluster.get_redis_connection(nodes[name]), owned[name], alone=False)
        for name in sorted(nodes)
    ]
