"""Publishing a model version to Redis: stage every bucket beside the live one, verify every bucket, swap.

Each step can be called alone and repeated after a kill at any moment: a bucket is staged by one atomic HSET, so a staged bucket
is whole or absent, and the swap does nothing the second time. Readers meet no missing bucket at any time and no answer of two
versions. On one server all buckets are swapped at once or none is; on a cluster, where no command reaches two nodes, one after
the other. Of two publishers at once, who meets the other's staged lists fails; publishing again mends that, and readers notice
nothing.
"""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
from redis.exceptions import OutOfMemoryError

from recsys_ops.errors import ServingError
from recsys_ops.serving.client import Client
from recsys_ops.serving.layout import (
    LAYOUT,
    VERSION,
    Content,
    Lists,
    encode,
    live_key,
    next_key,
    previous_key,
)
from recsys_ops.serving.nodes import Key, find_nodes
from recsys_ops.serving.redis_errors import explained_errors
from recsys_ops.serving.resp import converse, hmget_commands, hset_commands
from recsys_ops.settings import ServingSettings

log = logging.getLogger(__name__)

_BATCH_LISTS = 50_000
# what Redis keeps beside the bytes of a field and its value, on average
_FIELD_OVERHEAD = 80

# KEYS: of each bucket live, the copy that becomes live, and where the old live goes. ARGV: the version that becomes live.
# Looks at all buckets before it changes one. Returns how many cannot be swapped, and the first of them, counted from 1.
_SWAP = """
local refused, first = 0, 0
for i = 1, #KEYS, 3 do
  if redis.call('HGET', KEYS[i], '_version') ~= ARGV[1] and redis.call('HGET', KEYS[i + 1], '_version') ~= ARGV[1] then
    refused = refused + 1
    if first == 0 then first = (i + 2) / 3 end
  end
end
if refused > 0 then return {refused, first} end
for i = 1, #KEYS, 3 do
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
    """A finished publish. `bytes` are those of fields and values; `previous_version` is what `swap_back` can restore."""

    version: str
    previous_version: str | None
    users: int
    lists: int
    bytes: int
    seconds_staged: float
    seconds_verified: float
    seconds_swapped: float


def publish(client: Client, settings: ServingSettings, version: str, lists: Lists) -> Published:
    """Put a version live. On any error before the swap the live version is untouched; repeating finishes what a kill left.

    Where the version is live already and as it should be, nothing is done; where something in it was changed, it is replaced.
    Memory: the lists, once more as they are written, and a batch of 50,000 or of a bucket.

    client : with replies as bytes

    Raises ServingError.
    """
    content = encode(settings, version, lists)
    started = staged = verified = swapped = time.perf_counter()
    check_layout(client, settings)
    if not _is_live(client, settings, content):
        free_memory(client, settings, content)
        stage_version(client, settings, content)
        staged = time.perf_counter()
        verify_buckets(client, settings, content)
        verified = time.perf_counter()
        swap(client, settings, version)
        swapped = time.perf_counter()
    done = Published(
        version=version,
        previous_version=previous_version(client, settings),
        users=content.users,
        lists=len(content.fields),
        bytes=content.size,
        seconds_staged=staged - started,
        seconds_verified=verified - staged,
        seconds_swapped=swapped - verified,
    )
    log.info(
        "%s is live, before it %s: users=%d lists=%d bytes=%d, staged in %.2f s, verified in %.2f s, swapped in %.2f s",
        version,
        done.previous_version,
        done.users,
        done.lists,
        done.bytes,
        done.seconds_staged,
        done.seconds_verified,
        done.seconds_swapped,
    )
    return done


def check_layout(client: Client, settings: ServingSettings) -> None:
    """Raises ServingError where what is live has another number of buckets: readers would look into the wrong ones."""
    for layout in _common(client, settings, live_key, LAYOUT):
        if layout is not None and layout.partition("/")[2] != str(settings.buckets):
            raise ServingError(
                f"what is live under {settings.prefix} has layout {layout}, serving.buckets is {settings.buckets}: give "
                "serving.prefix another name, here and to the readers, or take the old number"
            )


def free_memory(client: Client, settings: ServingSettings, content: Content) -> None:
    """Drop what an earlier attempt staged and, where `maxmemory` would not hold three versions, the previous one.

    Then Redis cannot swap back until the next publish. Raises ServingError where two do not fit either and the server would
    throw live lists away rather than refuse.
    """
    lists = np.diff(content.starts) + len(content.common)
    with explained_errors(client, "making room"):
        for shard in find_nodes(client, settings):
            shard.unlink(settings, next_key)
            memory = shard.client.info("memory")
            there, evicts = memory["maxmemory"], memory["maxmemory_policy"].startswith("allkeys")
            if not there:
                continue
            if evicts:
                log.warning(
                    "%s throws lists away when it is full: set its maxmemory-policy to noeviction",
                    shard.name,
                )
            share = len(shard.buckets) / settings.buckets
            staged = int(content.size * share + _FIELD_OVERHEAD * lists[shard.buckets].sum())
            if memory["used_memory"] + staged > there:
                log.warning(
                    "%s has %d bytes of %d left for the %d that will be staged: the previous version is dropped first, "
                    "and cannot be swapped back until the next publish; raise maxmemory to keep it",
                    shard.name,
                    there - memory["used_memory"],
                    there,
                    staged,
                )
                shard.unlink(settings, previous_key)
                if evicts and shard.client.info("memory")["used_memory"] + staged > there:
                    raise ServingError(
                        f"{shard.name} has no memory left for {staged:,} bytes and would throw live lists away for them: raise "
                        "maxmemory, set maxmemory-policy to noeviction, and publish again"
                    )


def stage_version(client: Client, settings: ServingSettings, content: Content) -> None:
    """Write every bucket to its ``:next`` key, in place of what an earlier attempt left there. Raises ServingError."""
    with explained_errors(client, f"staging version {content.version}"):
        every = find_nodes(client, settings)
        try:
            for batch in content.batches(_BATCH_LISTS):
                commands = list(hset_commands(content, batch, partial(next_key, settings)))
                for shard in every:
                    own = [commands[bucket - batch.start] for bucket in shard.among(batch)]
                    converse(shard.client, own, 2 * len(own))
        except OutOfMemoryError:
            # what is staged would keep the live server at its limit
            for shard in every:
                shard.unlink(settings, next_key)
            raise


def verify_buckets(
    client: Client, settings: ServingSettings, content: Content, key: Key = next_key
) -> None:
    """Read every staged bucket back and compare all of it. Raises ServingError naming the first bucket that differs.

    key : `live_key` compares what is live
    """
    if differs := _difference(client, settings, content, key):
        raise ServingError(
            f"bucket {differs}: see who else writes to this Redis, then publish {content.version} again"
        )


def _is_live(client: Client, settings: ServingSettings, content: Content) -> bool:
    live = bucket_versions(client, settings, live_key)
    return (
        set(live) == {content.version} and _difference(client, settings, content, live_key) is None
    )


def _difference(
    client: Client, settings: ServingSettings, content: Content, key: Key
) -> str | None:
    """The first bucket that is not as it should be, and how."""
    common = list(content.common.values())
    with explained_errors(client, f"verifying version {content.version}"):
        every = find_nodes(client, settings)
        for batch in content.batches(_BATCH_LISTS):
            commands = list(hmget_commands(content, batch, partial(key, settings)))
            first, last = content.starts[batch.start], content.starts[batch.stop]
            values = content.values.slice(first, last - first).to_pylist()
            for shard in every:
                own = shard.among(batch)
                replies = converse(
                    shard.client, [commands[bucket - batch.start] for bucket in own], 2 * len(own)
                )
                for bucket, count, found in zip(own, replies[::2], replies[1::2], strict=True):
                    start, stop = content.starts[bucket], content.starts[bucket + 1]
                    expected = common + values[start - first : stop - first]
                    if count != len(expected) or found != expected:
                        differing = sum(
                            one != other for one, other in zip(found, expected, strict=True)
                        )
                        return (
                            f"{key(settings, bucket)} is not what version {content.version} holds: {count} fields for "
                            f"{len(expected)}, {differing} missing or different"
                        )
    return None


def swap(client: Client, settings: ServingSettings, version: str) -> None:
    """Let the staged version go live, and what was live become ``:previous``, unless it is the same version.

    Repeatable: a bucket that is live with the version and not staged stays. Raises ServingError where one is neither.
    """
    _exchange(client, settings, version, source=next_key, sink=previous_key)


def swap_back(client: Client, settings: ServingSettings, version: str) -> None:
    """Let the previous version go live again; what was live becomes ``:next``. Repeatable like `swap`.

    Raises ServingError where a bucket's previous version is another one.
    """
    _exchange(client, settings, version, source=previous_key, sink=next_key)


def live_version(client: Client, settings: ServingSettings) -> str | None:
    """The version readers get, None before the first publish. Raises ServingError if a swap was cut short."""
    found = bucket_versions(client, settings, live_key)
    if len(found) > 1:
        share = ", ".join(
            f"{name or 'no version'} in {count} buckets" for name, count in found.most_common()
        )
        raise ServingError(
            f"Redis is half swapped ({share} of {settings.buckets}): publish the wanted version again"
        )
    return next(iter(found))


def previous_version(client: Client, settings: ServingSettings) -> str | None:
    """The version `swap_back` can restore; None where there is none, or not the same one in every bucket."""
    found = bucket_versions(client, settings, previous_key)
    return next(iter(found)) if len(found) == 1 else None


def bucket_versions(client: Client, settings: ServingSettings, key: Key) -> Counter[str | None]:
    """How many buckets have which version; None: how many have none."""
    return _common(client, settings, key, VERSION)


def _common(
    client: Client, settings: ServingSettings, key: Key, field: bytes
) -> Counter[str | None]:
    found: Counter[str | None] = Counter()
    with explained_errors(client, f"reading {field.decode()} of every bucket"):
        for shard in find_nodes(client, settings):
            pipe = shard.client.pipeline(transaction=False)
            for bucket in shard.buckets:
                pipe.hget(key(settings, bucket), field.decode())
            found.update(None if value is None else value.decode() for value in pipe.execute())
    return found


def _exchange(
    client: Client, settings: ServingSettings, version: str, source: Key, sink: Key
) -> None:
    refused: list[int] = []
    count = 0
    with explained_errors(client, f"swapping to version {version}"):
        for shard in find_nodes(client, settings):
            # a script's keys must be of one slot, unless there are no slots
            groups = [shard.buckets] if shard.alone else [[bucket] for bucket in shard.buckets]
            pipe = shard.client.pipeline(transaction=False)
            for group in groups:
                keys = [
                    key
                    for bucket in group
                    for key in (
                        live_key(settings, bucket),
                        source(settings, bucket),
                        sink(settings, bucket),
                    )
                ]
                # EVAL, not EVALSHA: there is no script cache to lose
                pipe.eval(_SWAP, len(keys), *keys, version)
            for group, (missing, first) in zip(groups, pipe.execute(), strict=True):
                count += missing
                refused += [group[first - 1]] if missing else []
    if count:
        raise ServingError(
            f"{count} of {settings.buckets} buckets have no version {version} to swap to, the first is "
            f"{source(settings, min(refused))}; they still serve the version before: publish {version} again"
        )
