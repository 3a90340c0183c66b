"""Publishing a model version to Redis: stage every bucket beside the live one, verify every bucket, swap.

Each step can be called alone and repeated after a kill at any moment: a bucket is staged by one atomic HSET, so a staged
bucket is whole or absent, and swapped by one atomic script that does nothing the second time. Readers meet no missing
bucket at any time and no answer of two versions; while the swap runs (milliseconds), some users are already on the new
version and others still on the old.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import polars as pl
import redis
from redis.exceptions import OutOfMemoryError

from recsys_ops.errors import ServingError
from recsys_ops.serving.explain import explained
from recsys_ops.serving.layout import VERSION, Content, encode, live_key, next_key, previous_key
from recsys_ops.settings import ServingSettings

log = logging.getLogger(__name__)

_BATCH_USERS = 20_000
_BATCH_BUCKETS = 512

# KEYS: live, the copy that becomes live, where the old live goes. ARGV: the version that becomes live.
_SWAP = """
local source_version = redis.call('HGET', KEYS[2], '_version')
if redis.call('HGET', KEYS[1], '_version') == ARGV[1] then
  if source_version == ARGV[1] then redis.call('UNLINK', KEYS[2]) end
  return 1
end
if source_version ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[3]) end
redis.call('RENAME', KEYS[2], KEYS[1])
return 1
"""

Key = Callable[[ServingSettings, int], str]


@dataclass(frozen=True)
class Published:
    """A finished publish. `bytes` are those of fields and values; `previous_version` is what `swap_back` can restore."""

    version: str
    previous_version: str | None
    users: int
    bytes: int
    seconds_staged: float
    seconds_verified: float
    seconds_swapped: float


def publish(
    client: redis.Redis, settings: ServingSettings, version: str, recommendations: pl.DataFrame, popular: list[str]
) -> Published:
    """Put a version live. On any error before the swap the live version is untouched; repeating finishes what a kill left.

    `recommendations`: user_id String, items List[String], best first; `popular`: item ids, best first.
    `client` as redis-py makes it by default, with replies as bytes.
    A version's content must never change: buckets that are live with this version are left as they are.
    Raises ServingError.
    """
    content = encode(settings, version, recommendations, popular)
    started = time.perf_counter()
    stage(client, settings, content)
    staged = time.perf_counter()
    verify(client, settings, content)
    verified = time.perf_counter()
    swap(client, settings, version)
    swapped = time.perf_counter()
    done = Published(
        version=version,
        previous_version=previous_version(client, settings),
        users=len(content.fields),
        bytes=content.size,
        seconds_staged=staged - started,
        seconds_verified=verified - staged,
        seconds_swapped=swapped - verified,
    )
    log.info(
        "published %s after %s: users=%d bytes=%d, staged in %.2f s, verified in %.2f s, swapped in %.2f s",
        version,
        done.previous_version,
        done.users,
        done.bytes,
        done.seconds_staged,
        done.seconds_verified,
        done.seconds_swapped,
    )
    return done


def stage(client: redis.Redis, settings: ServingSettings, content: Content) -> None:
    """Write every bucket to its ``:next`` key, in place of what an earlier attempt left there. Raises ServingError."""
    with explained(client, f"staging version {content.version.decode()}"):
        try:
            for batch in content.batches(_BATCH_USERS):
                pipe = client.pipeline(transaction=False)
                for bucket in batch:
                    pipe.unlink(next_key(settings, bucket))
                    pipe.hset(next_key(settings, bucket), items=[*chain.from_iterable(content.bucket(bucket).items())])
                pipe.execute()
        except OutOfMemoryError:
            # what is staged would keep the live server at its limit
            client.unlink(*(next_key(settings, bucket) for bucket in range(settings.buckets)))
            raise


def verify(client: redis.Redis, settings: ServingSettings, content: Content) -> None:
    """Read every staged bucket back and compare all of it. Raises ServingError naming the first bucket that differs."""
    with explained(client, f"verifying version {content.version.decode()}"):
        for batch in content.batches(_BATCH_USERS):
            pipe = client.pipeline(transaction=False)
            for bucket in batch:
                pipe.hgetall(next_key(settings, bucket))
            for bucket, found in zip(batch, pipe.execute(), strict=True):
                expected = content.bucket(bucket)
                if found != expected:
                    differing = sum(found.get(field) != value for field, value in expected.items())
                    raise ServingError(
                        f"staged bucket {next_key(settings, bucket)} is not what was written: {len(found)} fields for "
                        f"{len(expected)}, {differing} missing or different; nothing was swapped and readers still get the "
                        "version before: see who else writes to this Redis, then publish again"
                    )


def swap(client: redis.Redis, settings: ServingSettings, version: str) -> None:
    """Let the staged version go live bucket by bucket, and what was live become ``:previous``.

    A bucket that is live with this version stays as it is. Raises ServingError where a bucket is neither live nor staged.
    """
    _exchange(client, settings, version, source=next_key, sink=previous_key)


def swap_back(client: redis.Redis, settings: ServingSettings, version: str) -> None:
    """Let the previous version go live again; what was live becomes ``:next``. Repeatable like `swap`.

    Raises ServingError where a bucket's previous version is another one.
    """
    _exchange(client, settings, version, source=previous_key, sink=next_key)


def live_version(client: redis.Redis, settings: ServingSettings) -> str | None:
    """The version readers get, None before the first publish. Raises ServingError if a swap was cut short."""
    versions = _versions(client, settings, live_key)
    if len(versions) > 1:
        share = ", ".join(f"{name or 'no version'} in {count} buckets" for name, count in versions.most_common())
        raise ServingError(f"Redis is half swapped ({share} of {settings.buckets}): publish the wanted version again")
    return next(iter(versions))


def previous_version(client: redis.Redis, settings: ServingSettings) -> str | None:
    """The version `swap_back` can restore; None where there is none, or not the same one in every bucket."""
    versions = _versions(client, settings, previous_key)
    return next(iter(versions)) if len(versions) == 1 else None


def _exchange(client: redis.Redis, settings: ServingSettings, version: str, source: Key, sink: Key) -> None:
    refused: list[int] = []
    with explained(client, f"swapping to version {version}"):
        for first in range(0, settings.buckets, _BATCH_BUCKETS):
            batch = range(first, min(first + _BATCH_BUCKETS, settings.buckets))
            pipe = client.pipeline(transaction=False)
            for bucket in batch:
                keys = live_key(settings, bucket), source(settings, bucket), sink(settings, bucket)
                # EVAL, not EVALSHA: there is no script cache to lose between two batches
                pipe.eval(_SWAP, 3, *keys, version)
            refused += [bucket for bucket, done in zip(batch, pipe.execute(), strict=True) if not done]
    if refused:
        raise ServingError(
            f"{len(refused)} of {settings.buckets} buckets have no version {version} to swap to, the first is "
            f"{source(settings, refused[0])}; they still serve the version before: publish {version} again"
        )


def _versions(client: redis.Redis, settings: ServingSettings, key: Key) -> Counter[str | None]:
    with explained(client, "reading the version of every bucket"):
        pipe = client.pipeline(transaction=False)
        for bucket in range(settings.buckets):
            pipe.hget(key(settings, bucket), VERSION)
        return Counter(None if found is None else found.decode() for found in pipe.execute())
