"""Reading a list: one key, one round trip."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from recsys_ops.errors import ServingError
from recsys_ops.serving.client import AsyncClient, Client
from recsys_ops.serving.layout import (
    LAYOUT,
    POPULAR,
    TRENDING,
    VERSION,
    Kind,
    bucket_of,
    decode_items,
    field_of,
    live_key,
)
from recsys_ops.serving.redis_errors import explained_errors
from recsys_ops.settings import ServingSettings

Source = Literal["personal", "similar", "bought_together", "category", "trending", "popular"]
_SOURCE: dict[Kind, Source] = {
    "user": "personal",
    "similar": "similar",
    "bought_together": "bought_together",
    "category": "category",
}


@dataclass(frozen=True)
class Answer:
    """What is shown, best first, all of one version; its source is `popular` where the version has no list of its own."""

    items: list[str]
    source: Source
    version: str


@dataclass(frozen=True)
class _Question:
    """The fields to ask one key for."""

    key: str
    field: bytes
    source: Source

    @property
    def fields(self) -> list[bytes]:
        return [self.field, POPULAR, VERSION, LAYOUT]

    def answer(self, settings: ServingSettings, found: Sequence[bytes | None]) -> Answer:
        own, popular, version, layout = found
        if popular is None or version is None or layout is None:
            raise ServingError(
                f"nothing is published at {self.key}: run recsys_retrain, or check serving.prefix"
            )
        if not layout.endswith(b"/%d" % settings.buckets):
            raise ServingError(
                f"{self.key} was published with layout {layout.decode()}: read it with the publisher's serving.buckets"
            )
        return Answer(
            items=decode_items(layout, popular if own is None else own),
            source="popular" if own is None else self.source,
            version=version.decode(),
        )


def _about(settings: ServingSettings, kind: Kind, name: str) -> _Question:
    return _Question(
        live_key(settings, bucket_of(settings, name)), field_of(kind, name), _SOURCE[kind]
    )


def _overall(settings: ServingSettings, field: bytes, source: Source) -> _Question:
    # all buckets have it: no node of a cluster shall answer for all
    return _Question(live_key(settings, random.randrange(settings.buckets)), field, source)  # noqa: S311


class RecommendationStore:
    """The lists as the shop reads them.

    `client` as `recsys_ops.serving.client.connect` makes it, or redis-py with replies as bytes; its timeouts and retries bound
    how long an answer can take when Redis is away. Every method raises ServingError if it is, or if nothing is published.
    """

    def __init__(self, client: Client, settings: ServingSettings) -> None:
        self._client = client
        self._settings = settings

    def recommendations(self, user_id: str) -> Answer:
        """The user's items; the popular ones for a stranger."""
        return self._ask(_about(self._settings, "user", user_id))

    def similar(self, item_id: str) -> Answer:
        """What is like the item."""
        return self._ask(_about(self._settings, "similar", item_id))

    def bought_together(self, item_id: str) -> Answer:
        """What is bought together with the item."""
        return self._ask(_about(self._settings, "bought_together", item_id))

    def popular(self, category: str | None = None) -> Answer:
        """The popular items, of a category or overall."""
        if category is not None:
            return self._ask(_about(self._settings, "category", category))
        return self._ask(_overall(self._settings, POPULAR, "popular"))

    def trending(self) -> Answer:
        """What stands out most against four weeks ago."""
        return self._ask(_overall(self._settings, TRENDING, "trending"))

    def version(self) -> str:
        return self.popular().version

    def _ask(self, question: _Question) -> Answer:
        with explained_errors(self._client, f"reading {question.key}"):
            found = cast("list[bytes | None]", self._client.hmget(question.key, question.fields))
        return question.answer(self._settings, found)


class AsyncRecommendationStore:
    """`RecommendationStore` for asyncio, with a client of `recsys_ops.serving.client.connect_async`."""

    def __init__(self, client: AsyncClient, settings: ServingSettings) -> None:
        self._client = client
        self._settings = settings

    async def recommendations(self, user_id: str) -> Answer:
        """The user's items; the popular ones for a stranger."""
        return await self._ask(_about(self._settings, "user", user_id))

    async def similar(self, item_id: str) -> Answer:
        """What is like the item."""
        return await self._ask(_about(self._settings, "similar", item_id))

    async def bought_together(self, item_id: str) -> Answer:
        """What is bought together with the item."""
        return await self._ask(_about(self._settings, "bought_together", item_id))

    async def popular(self, category: str | None = None) -> Answer:
        """The popular items, of a category or overall."""
        if category is not None:
            return await self._ask(_about(self._settings, "category", category))
        return await self._ask(_overall(self._settings, POPULAR, "popular"))

    async def trending(self) -> Answer:
        """What stands out most against four weeks ago."""
        return await self._ask(_overall(self._settings, TRENDING, "trending"))

    async def version(self) -> str:
        return (await self.popular()).version

    async def _ask(self, question: _Question) -> Answer:
        with explained_errors(self._client, f"reading {question.key}"):
            found = cast(
                "list[bytes | None]", await self._client.hmget(question.key, question.fields)
            )
        return question.answer(self._settings, found)
