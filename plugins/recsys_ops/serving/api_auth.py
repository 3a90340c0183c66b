"""The key and the rate limit of the lookup service. Each process counts requests on its own."""

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

API_KEY_VARIABLE = "RECSYS_API_KEY"

_HEADER = "X-API-Key"


def access_checks(api: ApiSettings, key: str | None) -> list[Dependency]:
    """The checks that every request has to pass, in this order.

    key : blanks and line breaks around it are ignored

    Raises SettingsError when a key is required, and it is missing or no header can hold it.
    """
    required = (key or "").strip() if api.require_key else None
    # bytes of the environment that are no UTF-8 are lone surrogates here, which do not print
    if required is not None and not (required and required.isprintable()):
        raise SettingsError(
            f"serving.api.require_key is set, but {API_KEY_VARIABLE} in the environment is missing "
            "or is not one line of UTF-8: set it to the key"
        )
    checks = [_rate_check(api.requests_per_minute, required)] if api.requests_per_minute else []
    return checks + ([_key_check(required)] if required else [])


def _rate_check(requests: int, key: str | None) -> Dependency:
    """One limit for all requests with the key, and one for each address without it.

    So a wrong key is counted as well: nobody can try keys faster than the limit.
    """
    limit = RateLimitItemPerMinute(requests)
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def check_rate(request: Request) -> None:
        address = request.client.host if request.client else "?"
        has_key = key and _equals(request.headers.get(_HEADER), key)
        client = "key" if has_key else f"address {address}"
        if not await limiter.hit(limit, client):
            reset, _ = await limiter.get_window_stats(limit, client)
            wait = max(1, math.ceil(reset - time.time()))
            raise HTTPException(
                429,
                f"more than {requests} requests in a minute: slow down",
                {"Retry-After": str(wait)},
            )

    return Dependency(check_rate)


def _key_check(key: str) -> Dependency:
    async def check_key(
        header: Annotated[str | None, Security(APIKeyHeader(name=_HEADER, auto_error=False))],
    ) -> None:
        if not _equals(header, key):
            # HTTP requires the header in a 401; the scheme has no registered name
            raise HTTPException(
                401, f"the header {_HEADER} is missing or wrong", {"WWW-Authenticate": "ApiKey"}
            )

    return Dependency(check_key)


def _equals(header: str | None, key: str) -> bool:
    # Starlette decodes the bytes of a header as Latin-1
    return header is not None and secrets.compare_digest(header.encode("latin-1"), key.encode())
