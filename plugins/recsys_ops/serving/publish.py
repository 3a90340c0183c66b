"""Publishing a model version to Redis: stage it, verify it, swap.

Staging writes every bucket of the version beside the live one, verifying reads all of it back,
swapping makes it live. Each step can be called alone, and repeated after a kill at any moment: one
atomic HSET stages a bucket, so a staged bucket is complete or missing, and a second swap changes
nothing. Readers never find a bucket missing, and never get an answer of two versions.

One server swaps all buckets together, or none. In a cluster, where no command reaches two nodes,
they are swapped one after the other. If two publishers stage at the same time, the one that finds
foreign staged data fails; publish again. Swaps and their records run under a lock (see
`recsys_ops.serving.lock`): the script swaps only for its holder. Readers notice nothing.

Every step takes what `find_nodes` returns, so that a publish finds the nodes once.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from redis.exceptions import OutOfMemoryError

from recsys_ops.errors import ServingError
from recsys_ops.serving.client import RedisClient
from recsys_ops.serving.layout import (
    LAYOUT,
    VERSION,
    EncodedVersion,
    VersionLists,
    encode_version,
    live_key,
    next_key,
    previous_key,
)
from recsys_ops.serving.lock import Lock, hold_lock
from recsys_ops.serving.nodes import BucketKey, RedisNode, RedisNodes, find_nodes
from recsys_ops.serving.redis_errors import explained_errors
from recsys_ops.serving.resp import hmget_commands, hset_commands, send_commands
from recsys_ops.settings import ServingSettings

log = logging.getLogger(__name__)

# Called under the lock with the versions that are live; what it returns encloses the swap.
Record = Callable[[Collection[str | None]], AbstractContextManager[None]]

_BATCH_LISTS = 50_000
# bytes of Redis for each field, beside the field and its value, on average
_FIELD_OVERHEAD = 80

# KEYS: for each bucket its live key, the key of the version that becomes live, and the key that the
# live version is moved to; at the end the lock, but not in a cluster, where it has another slot.
# ARGV: the version that becomes live, and the token of the lock. The script looks at all buckets
# before it changes one. It returns how many it cannot swap, and the first of them, counted from 1;
# or -1 where the lock is lost.
_SWAP = """
if #KEYS % 3 == 1 and redis.call('GET', KEYS[#KEYS]) ~= ARGV[2] then return {-1, 0} end
local refused, first = 0, 0
for i = 1, #KEYS - 2, 3 do
  if redis.call('HGET', KEYS[i], '_version') ~= ARGV[1]
      and redis.call('HGET', KEYS[i + 1], '_version') ~= ARGV[1] then
    refused = refused + 1
    if first == 0 then first = (i + 2) / 3 end
  end
end
if refused > 0 then return {refused, first} end
for i = 1, #KEYS - 2, 3 do
  if redis.call('HGET', KEYS[i + 1], '_version') == ARGV[1] then
    if redis.call('HGET', KEYS[i], '_version') == ARGV[1] then
      redis.call('UNLINK', KEYS[i])
    elseif redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('UNLINK', KEYS[i + 2])
      redis.call('RENAME', KEYS[i], KEYS[i + 2])
    end
    redis.call('RENAME', KEYS[i + 1], KEYS[i])
  end
end
return {0, 0}
"""


@dataclass(frozen=True)
class Published:
    """The figures of a finished publish.

    previous_version : the version that `swap_back` can make live again
    bytes : of all fields and values, without Redis' overhead
    """

    version: str
    previous_version: str | None
    users: int
    lists: int
    bytes: int
    seconds_staged: float
    seconds_verified: float
    seconds_swapped: float


def nothing_recorded(live: Collection[str | None]) -> AbstractContextManager[None]:
    """A `Record` for a Redis that no deployments are recorded of."""
    return nullcontext()


def publish(
    client: RedisClient,
    settings: ServingSettings,
    version: str,
    lists: VersionLists,
    record: Record = nothing_recorded,
) -> Published:
    """Make a version live. After an error before the swap, the live version is untouched.

    Repeating it finishes what a killed publish began. Where the version is live already, and Redis
    holds exactly its lists, nothing is done; where some of them were changed, they are replaced.
    Memory: the lists, their encoded form, and a batch of 50,000 lists or of one bucket.

    client : with replies as bytes
    record : encloses the swap, and may raise an error instead

    Raises ServingError.
    """
    content = encode_version(settings, version, lists)
    nodes = find_nodes(client, settings)
    started = staged = verified = time.perf_counter()
    check_layout(nodes)
    if not _is_live(nodes, content):
        free_redis_memory(nodes, content)
        stage_version(nodes, content)
        staged = time.perf_counter()
        verify_buckets(nodes, content)
        verified = time.perf_counter()
    swap(nodes, version, record)
    swapped = time.perf_counter()
    published = Published(
        version=version,
        previous_version=previous_version(nodes),
        users=content.users,
        lists=len(content.fields),
        bytes=content.size,
        seconds_staged=staged - started,
        seconds_verified=verified - staged,
        seconds_swapped=swapped - verified,
    )
    log.info(
        "%s is live, the previous version is %s: users=%d lists=%d bytes=%d, "
        "staged in %.2f s, verified in %.2f s, swapped in %.2f s",
        version,
        published.previous_version,
        published.users,
        published.lists,
        published.bytes,
        published.seconds_staged,
        published.seconds_verified,
        published.seconds_swapped,
    )
    return published


def check_layout(nodes: RedisNodes) -> None:
    """Raises ServingError where the live version has another number of buckets.

    Readers would then look for a list in the wrong bucket.
    """
    settings = nodes.settings
    for layout in _count_values(nodes, live_key, LAYOUT):
        if layout is not None and layout.partition("/")[2] != str(settings.buckets):
            raise ServingError(
                f"the live version under {settings.prefix} has layout {layout}, "
                f"serving.buckets is {settings.buckets}: give serving.prefix another name, "
                "here and in the readers, or restore the old number"
            )


def free_redis_memory(nodes: RedisNodes, content: EncodedVersion) -> None:
    """Delete what an earlier attempt staged, and if memory is short the previous version.

    `maxmemory` must hold three versions, else the previous one is deleted; then Redis cannot swap
    back until the next publish. Raises ServingError where `maxmemory` does not hold two versions
    and the server would evict live lists instead of refusing the new ones.
    """
    lists = np.diff(content.starts) + len(content.common)
    with explained_errors(nodes.client, "freeing memory"):
        for node in nodes:
            share = len(node.buckets) / nodes.settings.buckets
            _free_node_memory(
                node, int(content.size * share + _FIELD_OVERHEAD * lists[node.buckets].sum())
            )


def _free_node_memory(node: RedisNode, needed: int) -> None:
    node.delete(next_key)
    memory = node.client.info("memory")
    limit, evicts = memory["maxmemory"], memory["maxmemory_policy"].startswith("allkeys")
    if not limit:
        return
    if evicts:
        log.warning(
            "%s evicts lists when its memory is full: set its maxmemory-policy to noeviction",
            node.name,
        )
    if memory["used_memory"] + needed <= limit:
        return
    log.warning(
        "%s has %d bytes of %d left for the %d that will be staged: the previous version is "
        "deleted first, and cannot be swapped back until the next publish; raise maxmemory to "
        "keep it",
        node.name,
        limit - memory["used_memory"],
        limit,
        needed,
    )
    node.delete(previous_key)
    if evicts and node.client.info("memory")["used_memory"] + needed > limit:
        raise ServingError(
            f"{node.name} has no memory left for {needed:,} bytes and would evict live lists for "
            "them: raise maxmemory, set maxmemory-policy to noeviction, and publish again"
        )


def stage_version(nodes: RedisNodes, content: EncodedVersion) -> None:
    """Write every bucket to its ``:next`` key, in place of its old content. Raises ServingError."""
    with explained_errors(nodes.client, f"staging version {content.version}"):
        try:
            for batch in content.batches(_BATCH_LISTS):
                commands = list(hset_commands(content, batch, partial(next_key, nodes.settings)))
                for node in nodes:
                    buckets = node.buckets_in(batch)
                    node_commands = [commands[bucket - batch.start] for bucket in buckets]
                    send_commands(node.client, node_commands, 2 * len(buckets))
        except OutOfMemoryError:
            # the staged buckets would leave no memory to the live version
            for node in nodes:
                node.delete(next_key)
            raise


def verify_buckets(nodes: RedisNodes, content: EncodedVersion, key: BucketKey = next_key) -> None:
    """Read every staged bucket back and compare all of it.

    key : with `live_key` the live buckets are compared

    Raises ServingError naming the first bucket that differs.
    """
    if difference := _first_difference(nodes, content, key):
        raise ServingError(
            f"bucket {difference}: check who else writes to this Redis, "
            f"then publish {content.version} again"
        )


def _is_live(nodes: RedisNodes, content: EncodedVersion) -> bool:
    return (
        set(bucket_versions(nodes, live_key)) == {content.version}
        and _first_difference(nodes, content, live_key) is None
    )


def _first_difference(nodes: RedisNodes, content: EncodedVersion, key: BucketKey) -> str | None:
    """The first bucket whose content is not the version's, and what differs."""
    common = list(content.common.values())
    with explained_errors(nodes.client, f"verifying version {content.version}"):
        for batch in content.batches(_BATCH_LISTS):
            commands = list(hmget_commands(content, batch, partial(key, nodes.settings)))
            offset, end = content.starts[batch.start], content.starts[batch.stop]
            values = content.values.slice(offset, end - offset).to_pylist()
            for node in nodes:
                buckets = node.buckets_in(batch)
                node_commands = [commands[bucket - batch.start] for bucket in buckets]
                replies = send_commands(node.client, node_commands, 2 * len(buckets))
                for bucket, count, actual in zip(buckets, replies[::2], replies[1::2], strict=True):
                    start, stop = content.starts[bucket], content.starts[bucket + 1]
                    expected = common + values[start - offset : stop - offset]
                    if count != len(expected) or actual != expected:
                        different = sum(
                            one != other for one, other in zip(actual, expected, strict=True)
                        )
                        return (
                            f"{key(nodes.settings, bucket)} does not hold version "
                            f"{content.version}: {count} fields instead of {len(expected)}, "
                            f"{different} missing or different"
                        )
    return None


def swap(nodes: RedisNodes, version: str, record: Record = nothing_recorded) -> None:
    """Make the staged version live; the version that was live becomes ``:previous``.

    Repeatable: a bucket in which the version is live and not staged is left alone. Raises
    ServingError where the version is neither live nor staged.
    """
    _swap(nodes, version, next_key, previous_key, record)


def swap_back(nodes: RedisNodes, version: str, record: Record = nothing_recorded) -> None:
    """Make the previous version live again; the version that was live becomes ``:next``.

    Repeatable like `swap`. Raises ServingError where a bucket's previous version is another one.
    """
    _swap(nodes, version, previous_key, next_key, record)


def live_version(nodes: RedisNodes) -> str | None:
    """The version that readers get; None before the first publish.

    Raises ServingError where a swap broke off, so that two versions are live.
    """
    versions = bucket_versions(nodes, live_key)
    if len(versions) > 1:
        counts = ", ".join(
            f"{name or 'no version'} in {count} buckets" for name, count in versions.most_common()
        )
        raise ServingError(
            f"Redis is half swapped ({counts} of {nodes.settings.buckets}): "
            "publish the wanted version again"
        )
    return next(iter(versions))


def previous_version(nodes: RedisNodes) -> str | None:
    """The version that `swap_back` can make live again.

    None where there is none, or not the same one in every bucket.
    """
    versions = bucket_versions(nodes, previous_key)
    return next(iter(versions)) if len(versions) == 1 else None


def bucket_versions(nodes: RedisNodes, key: BucketKey) -> Counter[str | None]:
    """The number of buckets by version; None counts the buckets without one."""
    return _count_values(nodes, key, VERSION)


def _count_values(nodes: RedisNodes, key: BucketKey, field: bytes) -> Counter[str | None]:
    values: Counter[str | None] = Counter()
    with explained_errors(nodes.client, f"reading {field.decode()} of every bucket"):
        for node in nodes:
            pipe = node.client.pipeline(transaction=False)
            for bucket in node.buckets:
                pipe.hget(key(nodes.settings, bucket), field.decode())
            values.update(None if value is None else value.decode() for value in pipe.execute())
    return values


def _swap(
    nodes: RedisNodes, version: str, source: BucketKey, target: BucketKey, record: Record
) -> None:
    with hold_lock(nodes, version) as lock, record(set(bucket_versions(nodes, live_key))):
        _swap_buckets(nodes, version, source, target, lock)
        if live_version(nodes) != version:
            raise lock.lost()


def _swap_buckets(
    nodes: RedisNodes, version: str, source: BucketKey, target: BucketKey, lock: Lock
) -> None:
    settings = nodes.settings
    refused: list[int] = []
    count = 0
    with explained_errors(nodes.client, f"swapping to version {version}"):
        for node in nodes:
            # all keys of a script must be of one slot, and each bucket has a slot of its own
            groups = [[bucket] for bucket in node.buckets] if node.in_cluster else [node.buckets]
            lock.renew()
            pipe = node.client.pipeline(transaction=False)
            for group in groups:
                keys = [
                    key(settings, bucket) for bucket in group for key in (live_key, source, target)
                ]
                keys += [] if node.in_cluster else [lock.key]
                # EVAL, because a restarted server does not know a script that EVALSHA names
                pipe.eval(_SWAP, len(keys), *keys, version, lock.token)
            for group, (missing, first) in zip(groups, pipe.execute(), strict=True):
                if missing < 0:
                    raise lock.lost()
                count += missing
                refused += [group[first - 1]] if missing else []
    if count:
        raise ServingError(
            f"{count} of {settings.buckets} buckets have no version {version} to swap to, "
            f"the first is {source(settings, min(refused))}; "
            f"they still serve the version before: publish {version} again"
        )
