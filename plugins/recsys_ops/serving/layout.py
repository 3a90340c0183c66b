"""The Redis layout: which key and field a user's list is under, and how it is written.

Users are spread over `buckets` hashes, bucket = crc32(UTF-8 user id) mod buckets. Each bucket has three keys of one
cluster slot (the literal braces are Redis' hash tag): ``recsys:{17}`` is live, ``recsys:{17}:next`` staged,
``recsys:{17}:previous`` what was live before. A bucket's fields:

- ``<user id>``: the user's items, best first, as a JSON array of strings (any id can be written, any language reads it).
  A user id that begins with ``_`` has one more ``_`` in front, so that no user can be taken for the two fields below.
- ``_popular``: the stranger's items, the same in every bucket.
- ``_version``: the model version, the same in every bucket.

A reader needs one ``HMGET`` of user, ``_popular`` and ``_version`` on one key, so one answer is always of one version.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys_ops.errors import ServingError
from recsys_ops.settings import ServingSettings

POPULAR = b"_popular"
VERSION = b"_version"


def live_key(settings: ServingSettings, bucket: int) -> str:
    return f"{settings.prefix}:{{{bucket}}}"


def next_key(settings: ServingSettings, bucket: int) -> str:
    return f"{live_key(settings, bucket)}:next"


def previous_key(settings: ServingSettings, bucket: int) -> str:
    return f"{live_key(settings, bucket)}:previous"


def bucket_of(settings: ServingSettings, user_id: str) -> int:
    return zlib.crc32(_utf8(user_id)) % settings.buckets


def field_of(user_id: str) -> bytes:
    return b"_" + _utf8(user_id) if user_id.startswith("_") else _utf8(user_id)


def decode_items(value: bytes) -> list[str]:
    items: list[str] = json.loads(value)
    return items


@dataclass(frozen=True)
class Content:
    """All that one version puts into Redis. The users of bucket b are `fields[starts[b]:starts[b + 1]]`."""

    version: bytes
    popular: bytes
    fields: list[bytes]
    values: list[bytes]
    starts: list[int]

    def bucket(self, number: int) -> dict[bytes, bytes]:
        """The fields and values of one bucket's hash."""
        users = slice(self.starts[number], self.starts[number + 1])
        own = dict(zip(self.fields[users], self.values[users], strict=True))
        return own | {POPULAR: self.popular, VERSION: self.version}

    def batches(self, users: int) -> Iterator[range]:
        """The bucket numbers in order, in runs of about `users` users."""
        buckets = len(self.starts) - 1
        step = max(1, users * buckets // (len(self.fields) + buckets))
        return (range(first, min(first + step, buckets)) for first in range(0, buckets, step))

    @property
    def size(self) -> int:
        """Bytes of all fields and values, without Redis' own overhead."""
        users = sum(map(len, self.fields)) + sum(map(len, self.values))
        return users + (len(self.starts) - 1) * sum(map(len, (POPULAR, self.popular, VERSION, self.version)))


def encode(settings: ServingSettings, version: str, recommendations: pl.DataFrame, popular: list[str]) -> Content:
    """Lay a version out in buckets, the first `top_n` items of each list.

    `recommendations`: user_id String, items List[String], best first. A user without items is left out and gets the
    popular items like a stranger. Raises ServingError where there is nothing to serve, an id is missing or a user twice.
    """
    frame = recommendations.select("user_id", pl.col("items").list.head(settings.top_n))
    if not popular:
        raise ServingError(f"version {version} has no popular items to give to strangers: check popular.parquet")
    if frame["user_id"].has_nulls() or frame.select(pl.col("items").list.contains(None).any()).item():
        raise ServingError(f"the recommendations of version {version} have an empty user or item id: train it again")
    twice = frame["user_id"].filter(frame["user_id"].is_duplicated())
    if len(twice):
        raise ServingError(f"the recommendations of version {version} have user {twice[0]!r} twice: train it again")
    frame = frame.filter(pl.col("items").list.len() > 0)
    if frame.is_empty():
        raise ServingError(f"version {version} has recommendations for nobody: check recommendations.parquet")

    frame = frame.select(
        bucket=_buckets(frame["user_id"], settings.buckets),
        field=pl.when(pl.col("user_id").str.starts_with("_")).then("_" + pl.col("user_id")).otherwise("user_id"),
        value=_json_arrays(pl.col("items")),
    ).sort("bucket", maintain_order=True)
    return Content(
        version=version.encode(),
        popular=json.dumps(popular[: settings.top_n], ensure_ascii=False, separators=(",", ":")).encode(),
        fields=frame["field"].cast(pl.Binary).to_list(),
        values=frame["value"].cast(pl.Binary).to_list(),
        starts=np.searchsorted(frame["bucket"].to_numpy(), np.arange(settings.buckets + 1)).tolist(),
    )


def _utf8(text: str) -> bytes:
    # a stranger's id may hold what UTF-8 cannot (a lone surrogate from JSON): look it up, do not fail on it
    return text.encode("utf-8", "surrogatepass")


def _buckets(user_ids: pl.Series, buckets: int) -> pl.Series:
    crc = np.fromiter(map(zlib.crc32, user_ids.cast(pl.Binary).to_list()), np.uint32, len(user_ids))
    return pl.Series(crc % buckets)


def _json_arrays(items: pl.Expr) -> pl.Expr:
    return pl.struct(items=items).struct.json_encode().str.strip_prefix('{"items":').str.strip_suffix("}")
