"""Reading a list from Redis: one key, one round trip."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from recsys_ops.errors import ServingError
from recsys_ops.serving.client import AsyncRedisClient, RedisClient
from recsys_ops.serving.layout import (
    LAYOUT,
    POPULAR,
    TRENDING,
    VERSION,
    ListKind,
    bucket_of,
    decode_items,
    field_of,
    live_key,
)
from recsys_ops.serving.redis_errors import explained_errors
from recsys_ops.settings import ServingSettings

ListSource = Literal["personal", "similar", "bought_together", "category", "trending", "popular"]
_SOURCE: dict[ListKind, ListSource] = {
    "user": "personal",
    "similar": "similar",
    "bought_together": "bought_together",
    "category": "category",
}


@dataclass(frozen=True)
class Answer:
    """A list of one version, best first.

    source : `popular` where the version has no list of the requested kind
    """

    items: list[str]
    source: ListSource
    version: str


@dataclass(frozen=True)
class _Request:
    """The fields to read of one key."""

    key: str
    field: bytes
    source: ListSource

    @property
    def fields(self) -> list[bytes]:
        return [self.field, POPULAR, VERSION, LAYOUT]

    def answer(self, settings: ServingSettings, values: Sequence[bytes | None]) -> Answer:
        own, popular, version, layout = values
        if popular is None or version is None or layout is None:
            raise ServingError(
                f"nothing is published at {self.key}: run recsys_retrain, or check serving.prefix"
            )
        if not layout.endswith(b"/%d" % settings.buckets):
            raise ServingError(
                f"{self.key} was published with layout {layout.decode()}: "
                "read it with the publisher's serving.buckets"
            )
        return Answer(
            items=decode_items(layout, popular if own is None else own),
            source="popular" if own is None else self.source,
            version=version.decode(),
        )


def _list_of(settings: ServingSettings, kind: ListKind, name: str) -> _Request:
    return _Request(
        live_key(settings, bucket_of(settings, name)), field_of(kind, name), _SOURCE[kind]
    )


def _list_for_all(settings: ServingSettings, field: bytes, source: ListSource) -> _Request:
    # every bucket has it; a random one spreads the load over the nodes of a cluster
    return _Request(live_key(settings, random.randrange(settings.buckets)), field, source)  # noqa: S311


class RecommendationStore:
    """The lists as the shop reads them.

    client : of `recsys_ops.serving.client.connect_redis`, or of redis-py with replies as bytes; its
        timeouts and retries limit how long a method takes while Redis cannot be reached

    Every method raises ServingError if Redis cannot be reached, or if nothing is published.
    """

    def __init__(self, client: RedisClient, settings: ServingSettings) -> None:
        self._client = client
        self._settings = settings

    def recommendations(self, user_id: str) -> Answer:
        """The user's items; the popular items for an unknown user."""
        return self._read(_list_of(self._settings, "user", user_id))

    def similar(self, item_id: str) -> Answer:
        """The items most similar to an item."""
        return self._read(_list_of(self._settings, "similar", item_id))

    def bought_together(self, item_id: str) -> Answer:
        """The items that are bought together with an item."""
        return self._read(_list_of(self._settings, "bought_together", item_id))

    def popular(self, category: str | None = None) -> Answer:
        """The popular items, of a category or of all."""
        if category is not None:
            return self._read(_list_of(self._settings, "category", category))
        return self._read(_list_for_all(self._settings, POPULAR, "popular"))

    def trending(self) -> Answer:
        """The items that stand out most against the 28 days before."""
        return self._read(_list_for_all(self._settings, TRENDING, "trending"))

    def version(self) -> str:
        """The live version."""
        return self.popular().version

    def _read(self, request: _Request) -> Answer:
        with explained_errors(self._client, f"reading {request.key}"):
            values = cast("list[bytes | None]", self._client.hmget(request.key, request.fields))
        return request.answer(self._settings, values)


class AsyncRecommendationStore:
    """`RecommendationStore` for asyncio.

    client : of `recsys_ops.serving.client.connect_redis_async`
    """

    def __init__(self, client: AsyncRedisClient, settings: ServingSettings) -> None:
        self._client = client
        self._settings = settings

    async def recommendations(self, user_id: str) -> Answer:
        """The user's items; the popular items for an unknown user."""
        return await self._read(_list_of(self._settings, "user", user_id))

    async def similar(self, item_id: str) -> Answer:
        """The items most similar to an item."""
        return await self._read(_list_of(self._settings, "similar", item_id))

    async def bought_together(self, item_id: str) -> Answer:
        """The items that are bought together with an item."""
        return await self._read(_list_of(self._settings, "bought_together", item_id))

    async def popular(self, category: str | None = None) -> Answer:
        """The popular items, of a category or of all."""
        if category is not None:
            return await self._read(_list_of(self._settings, "category", category))
        return await self._read(_list_for_all(self._settings, POPULAR, "popular"))

    async def trending(self) -> Answer:
        """The items that stand out most against the 28 days before."""
        return await self._read(_list_for_all(self._settings, TRENDING, "trending"))

    async def version(self) -> str:
        return (await self.popular()).version

    async def _read(self, request: _Request) -> Answer:
        with explained_errors(self._client, f"reading {request.key}"):
            values = cast(
                "list[bytes | None]", await self._client.hmget(request.key, request.fields)
            )
        return request.answer(self._settings, values)
