"""Reading one user's recommendations: one key, one round trip."""

from dataclasses import dataclass
from typing import Literal, cast

import redis

from recsys_ops.errors import ServingError
from recsys_ops.serving.explain import explained
from recsys_ops.serving.layout import POPULAR, VERSION, bucket_of, decode_items, field_of, live_key
from recsys_ops.settings import ServingSettings


@dataclass(frozen=True)
class Recommendations:
    """What a user is shown, best first, all of one version; `popular` for whom the version does not know."""

    items: list[str]
    source: Literal["personal", "popular"]
    version: str


class RecommendationStore:
    """Recommendations as the shop reads them.

    `client` as redis-py makes it by default, with replies as bytes. Its `socket_timeout` and `socket_connect_timeout`
    (5 s each unless given) and its `retry` bound how long an answer can take when Redis is away.
    """

    def __init__(self, client: redis.Redis, settings: ServingSettings) -> None:
        self._client = client
        self._settings = settings

    def get(self, user_id: str) -> Recommendations:
        """One user's list, the popular items for a stranger. Raises ServingError if Redis is away or nothing is published."""
        key = live_key(self._settings, bucket_of(self._settings, user_id))
        with explained(self._client, f"reading {key}"):
            answer = cast("list[bytes | None]", self._client.hmget(key, [field_of(user_id), POPULAR, VERSION]))
        personal, popular, version = answer
        if popular is None or version is None:
            raise ServingError(
                f"nothing is published at {key}: run recsys_retrain, or check that prefix and buckets are the publisher's"
            )
        return Recommendations(
            items=decode_items(popular if personal is None else personal),
            source="popular" if personal is None else "personal",
            version=version.decode(),
        )
