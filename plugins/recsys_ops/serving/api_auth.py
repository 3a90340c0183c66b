"""Who is let in to the look-up, and how often; one process counts for itself."""

import math
import secrets
import time
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.params import Depends as Dependency
from fastapi.security import APIKeyHeader
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from recsys_ops.errors import SettingsError
from recsys_ops.settings import ApiSettings

KEY = "RECSYS_API_KEY"

_HEADER = "X-API-Key"


def access_checks(api: ApiSettings, key: str | None) -> list[Dependency]:
    """What every request has to pass, in this order.

    key : blanks and line breaks around it do not count

    Raises SettingsError when a key is required and there is none, or none that a header can have.
    """
    right = (key or "").strip() if api.require_key else None
    # the environment's bytes that are no UTF-8 are lone surrogates here, which do not print
    if right is not None and not (right and right.isprintable()):
        raise SettingsError(
            f"serving.api.require_key is set, but {KEY} in the environment is missing, or no line of UTF-8: put the key there"
        )
    found = [_rate(api.requests_per_minute, right)] if api.requests_per_minute else []
    return found + ([_key(right)] if right else [])


def _rate(requests: int, key: str | None) -> Dependency:
    """Of whoever has the key together, and of every address without it: a key cannot be guessed faster."""
    limit, limiter = (
        RateLimitItemPerMinute(requests),
        SlidingWindowCounterRateLimiter(MemoryStorage()),
    )

    async def not_too_often(request: Request) -> None:
        address = request.client.host if request.client else "?"
        who = "key" if key and _is(request.headers.get(_HEADER), key) else f"address {address}"
        if not await limiter.hit(limit, who):
            reset, _ = await limiter.get_window_stats(limit, who)
            wait = max(1, math.ceil(reset - time.time()))
            raise HTTPException(
                429,
                f"more than {requests} requests in a minute: slow down",
                {"Retry-After": str(wait)},
            )

    return Dependency(not_too_often)


def _key(key: str) -> Dependency:
    async def with_the_key(
        given: Annotated[str | None, Security(APIKeyHeader(name=_HEADER, auto_error=False))],
    ) -> None:
        if not _is(given, key):
            # the header is part of HTTP's 401; the scheme has no registered name
            raise HTTPException(
                401, f"the header {_HEADER} is missing or wrong", {"WWW-Authenticate": "ApiKey"}
            )

    return Dependency(with_the_key)


def _is(given: str | None, key: str) -> bool:
    # a header's bytes are read as Latin-1
    return given is not None and secrets.compare_digest(given.encode("latin-1"), key.encode())
