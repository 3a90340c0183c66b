"""The Redis servers behind a client, and which buckets each of them holds."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from recsys_ops.serving.client import RedisClient
from recsys_ops.serving.layout import live_key
from recsys_ops.serving.redis_errors import explained_errors, server_name
from recsys_ops.settings import ServingSettings

# `live_key`, `next_key` or `previous_key`
BucketKey = Callable[[ServingSettings, int], str]

_MAX_UNLINK_S = 5


@dataclass(frozen=True)
class RedisNode:
    """One server.

    buckets : those that it holds, ascending
    in_cluster : whether its commands may only name keys of one slot
    """

    client: redis.Redis
    settings: ServingSettings
    buckets: list[int]
    in_cluster: bool

    @property
    def name(self) -> str:
        return f"Redis {server_name(self.client)}"

    def buckets_in(self, batch: range) -> list[int]:
        """Those of its buckets that are in the batch."""
        first, last = np.searchsorted(self.buckets, [batch.start, batch.stop])
        return self.buckets[first:last]

    def delete(self, key: BucketKey) -> None:
        """Delete this key of every bucket, and wait until the memory is free, at most 5 s."""
        pipe = self.client.pipeline(transaction=False)
        for bucket in self.buckets:
            pipe.unlink(key(self.settings, bucket))
        if sum(pipe.execute()):
            deadline = time.monotonic() + _MAX_UNLINK_S
            while (
                self.client.info("memory")["lazyfree_pending_objects"]
                and time.monotonic() < deadline
            ):
                time.sleep(0.01)


@dataclass(frozen=True)
class RedisNodes:
    """All servers that hold the buckets of the settings' prefix."""

    client: RedisClient
    settings: ServingSettings
    nodes: list[RedisNode]

    def __iter__(self) -> Iterator[RedisNode]:
        return iter(self.nodes)


def find_nodes(client: RedisClient, settings: ServingSettings) -> RedisNodes:
    """The servers behind a client. Raises ServingError when a cluster does not hold every slot.

    client : with replies as bytes
    """
    if not isinstance(client, redis.RedisCluster):
        single = RedisNode(client, settings, list(range(settings.buckets)), in_cluster=False)
        return RedisNodes(client, settings, [single])
    cluster: Any = client
    nodes = {}
    buckets: dict[str, list[int]] = {}
    with explained_errors(client, "finding the nodes of the buckets"):
        for bucket in range(settings.buckets):
            node = cluster.get_node_from_key(live_key(settings, bucket))
            nodes[node.name] = node
            buckets.setdefault(node.name, []).append(bucket)
        return RedisNodes(
            client,
            settings,
            [
                RedisNode(
                    cluster.get_redis_connection(nodes[name]),
                    settings,
                    buckets[name],
                    in_cluster=True,
                )
                for name in sorted(nodes)
            ],
        )
