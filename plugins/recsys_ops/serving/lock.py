"""The lock of publishing: one publisher at a time checks, swaps and records."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from recsys_ops.errors import ServingError
from recsys_ops.serving.layout import lock_key
from recsys_ops.serving.nodes import RedisNodes
from recsys_ops.serving.redis_errors import REDIS_ERRORS, explained_errors

log = logging.getLogger(__name__)

# A swap takes well under a second, its record two writes of a small object. So long a publisher
# that was killed keeps the others waiting.
_LEASE_S = 10
_WAIT_S = 25
_PAUSE_S = 0.1

# KEYS: the lock. ARGV: the token, the lease in milliseconds, and `take` or `renew`: a lock that has
# ended is not renewed, because others may have held it since. Returns the token of the holder.
# Redis refuses a SET where its memory is full, but not after another command has written:
# rolling back must be possible then.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] and (holder or ARGV[3] == 'renew') then return holder or '' end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end"


@dataclass(frozen=True)
class Lock:
    """A lock that was taken. It is lost when its lease ends, or with the server's memory."""

    nodes: RedisNodes
    token: str

    @property
    def key(self) -> str:
        return lock_key(self.nodes.settings)

    def renew(self) -> None:
        """Begin the lease anew. Raises ServingError where the lock is lost."""
        if self.set("renew") != self.token:
            raise self.lost()

    def set(self, action: Literal["take", "renew"]) -> str:
        """Take or renew the lock if nobody else holds it; returns the token of the holder."""
        with explained_errors(self.nodes.client, f"locking {self.key}"):
            arguments = [self.key, self.token, str(_LEASE_S * 1000), action]
            holder: bytes = self.nodes.client.eval(_TAKE, 1, *arguments)
        return holder.decode()

    def lost(self) -> ServingError:
        return ServingError(
            f"{self.key} was lost before the swap was complete, because it took longer than "
            f"{_LEASE_S} s or Redis restarted: publish again; recsys_ops redis status shows "
            "what is live"
        )


@contextmanager
def hold_lock(nodes: RedisNodes, version: str) -> Iterator[Lock]:
    """Hold the lock, waiting for it for 25 s at most; readers do not notice it.

    version : that is going live, for the message to those who wait

    Raises ServingError that names the version of the present holder.
    """
    lock = Lock(nodes, f"{version} {uuid.uuid4().hex}")
    deadline = time.monotonic() + _WAIT_S
    while (holder := lock.set("take")) != lock.token:
        if time.monotonic() > deadline:
            raise ServingError(
                f"{lock.key} is held by others, now to make {holder.partition(' ')[0]} live: "
                "run this again when they have ended"
            )
        time.sleep(_PAUSE_S)
    try:
        yield lock
    finally:
        try:
            nodes.client.eval(_RELEASE, 1, lock.key, lock.token)
        except REDIS_ERRORS as error:
            log.warning("%s stays locked for %d s: %s", lock.key, _LEASE_S, error)
