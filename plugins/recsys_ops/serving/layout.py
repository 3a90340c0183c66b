"""The Redis layout: which key and field a list is under, and how it is written.

All lists are spread over `buckets` hashes, bucket = crc32(UTF-8 id) mod buckets. Each bucket has three keys of one cluster slot
(the literal braces are Redis' hash tag): ``recsys:{17}`` is live, ``recsys:{17}:next`` staged, ``recsys:{17}:previous`` what was
live before. A bucket's fields:

- ``<user id>``: the user's items, best first. A user id that begins with ``_`` has one more ``_`` in front, so that no user can
  be taken for another field.
- ``_similar:<item id>``, ``_bought_together:<item id>``: what is like an item, and what is bought together with it.
- ``_category:<category>``: the popular items of a category.
- ``_popular``, ``_trending``: the stranger's items, the same in every bucket. Without a trend there is no ``_trending``.
- ``_version``: the model version, the same in every bucket.
- ``_layout``: encoding and number of buckets, such as ``text/4096``, the same in every bucket.

A list as ``text`` is its ids with commas between; a comma in an id is ``%2C`` and a ``%`` is ``%25``, so that what unquotes URLs
reads them in any language. As ``int32`` it is four bytes an id, little-endian.

A reader needs one ``HMGET`` of field, ``_popular`` and ``_version`` on one key, so one answer is always of one version.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_ops.errors import ServingError
from recsys_ops.settings import ServingSettings

POPULAR = b"_popular"
TRENDING = b"_trending"
VERSION = b"_version"
LAYOUT = b"_layout"

Kind = Literal["user", "similar", "bought_together", "category"]
_PREFIX: dict[Kind, str] = {
    "user": "",
    "similar": "_similar:",
    "bought_together": "_bought_together:",
    "category": "_category:",
}


def live_key(settings: ServingSettings, bucket: int) -> str:
    return f"{settings.prefix}:{{{bucket}}}"


def next_key(settings: ServingSettings, bucket: int) -> str:
    return f"{live_key(settings, bucket)}:next"


def previous_key(settings: ServingSettings, bucket: int) -> str:
    return f"{live_key(settings, bucket)}:previous"


def bucket_of(settings: ServingSettings, name: str) -> int:
    """The bucket of a user's, an item's or a category's lists."""
    return zlib.crc32(_utf8(name)) % settings.buckets


def field_of(kind: Kind, name: str) -> bytes:
    return _utf8(f"_{name}" if kind == "user" and name.startswith("_") else _PREFIX[kind] + name)


def layout_of(settings: ServingSettings) -> bytes:
    return f"{settings.encoding}/{settings.buckets}".encode()


def decode_items(layout: bytes, value: bytes) -> list[str]:
    """The ids of a list, as its bucket's layout says they are written."""
    if layout.startswith(b"int32"):
        return [str(number) for number in np.frombuffer(value, "<i4").tolist()]
    if b"%" not in value:
        return value.decode().split(",")
    return [unquote_to_bytes(item).decode() for item in value.split(b",")]


@dataclass(frozen=True)
class Lists:
    """All that a version shows, item ids best first.

    users, similar, bought_together, categories : DataFrame, (id String, items List[String]), each id once
    popular, trending : item ids
    """

    users: pl.DataFrame
    similar: pl.DataFrame
    bought_together: pl.DataFrame
    categories: pl.DataFrame
    popular: Sequence[str]
    trending: Sequence[str]


@dataclass(frozen=True)
class Content:
    """All that one version puts into Redis.

    common : the fields and values of every bucket, the same for all
    fields, values : LargeBinaryArray, (n_lists,), by bucket; those of bucket b are starts[b] … starts[b + 1]
    """

    version: str
    users: int
    common: Mapping[bytes, bytes]
    fields: pa.LargeBinaryArray
    values: pa.LargeBinaryArray
    starts: Sequence[int]

    def batches(self, lists: int) -> Iterator[range]:
        """The bucket numbers in order, in runs of about `lists` lists."""
        buckets = len(self.starts) - 1
        step = max(1, lists * buckets // (len(self.fields) + buckets))
        return (range(first, min(first + step, buckets)) for first in range(0, buckets, step))

    @property
    def size(self) -> int:
        """Bytes of all fields and values, without Redis' own overhead."""
        common = sum(len(field) + len(value) for field, value in self.common.items())
        return _data_bytes(self.fields) + _data_bytes(self.values) + (len(self.starts) - 1) * common


def encode(settings: ServingSettings, version: str, lists: Lists) -> Content:
    """Lay a version out in buckets. An empty list is left out: who has none gets the popular items like a stranger.

    Raises ServingError where there is nothing to serve, an id is missing or there twice, or the ids do not fit the encoding.
    """
    if not lists.popular:
        raise ServingError(
            f"version {version} has no popular items to give to strangers: check popular.parquet"
        )
    frames: dict[Kind, pl.DataFrame] = {
        "user": lists.users, "similar": lists.similar, "bought_together": lists.bought_together, "category": lists.categories
    }  # fmt: skip
    for kind, frame in frames.items():
        _check(version, kind, frame)
    if not lists.users["items"].list.len().sum():
        raise ServingError(
            f"version {version} has recommendations for nobody: check recommendations.parquet"
        )
    every = pl.concat(
        frame.filter(pl.col("items").list.len() > 0).select("id", "items", field=_field(kind))
        for kind, frame in frames.items()
    )
    placed = pl.DataFrame(
        {
            "bucket": _buckets(every["id"], settings.buckets),
            "field": every["field"],
            "value": _encode(settings, every["items"]),
        }
    ).sort("bucket", maintain_order=True)
    overall = {POPULAR: lists.popular, TRENDING: lists.trending}
    return Content(
        version=version,
        users=int((lists.users["items"].list.len() > 0).sum()),
        common={
            VERSION: version.encode(),
            LAYOUT: layout_of(settings),
            **{
                name: _encode(settings, pl.Series([items])).cast(pl.Binary)[0]
                for name, items in overall.items()
                if items
            },
        },
        fields=_binary(placed["field"]),
        values=_binary(placed["value"]),
        starts=np.searchsorted(
            placed["bucket"].to_numpy(), np.arange(settings.buckets + 1)
        ).tolist(),
    )


def _check(version: str, kind: Kind, frame: pl.DataFrame) -> None:
    ids, flat = frame["id"], frame["items"].explode(empty_as_null=False)
    if ids.has_nulls() or flat.has_nulls() or flat.str.len_bytes().min() == 0:
        raise ServingError(
            f"the {kind} lists of version {version} have an empty id: train it again"
        )
    if ids.n_unique() < len(ids):
        twice = ids.filter(ids.is_duplicated())[0]
        raise ServingError(
            f"the {kind} lists of version {version} have {twice!r} twice: train it again"
        )


def _field(kind: Kind) -> pl.Expr:
    name = pl.col("id")
    if kind == "user":
        return pl.when(name.str.starts_with("_")).then("_" + name).otherwise(name)
    return _PREFIX[kind] + name


def _buckets(ids: pl.Series, buckets: int) -> pl.Series:
    crc = np.fromiter(map(zlib.crc32, ids.cast(pl.Binary).to_list()), np.uint32, len(ids))
    return pl.Series(crc % buckets)


def _encode(settings: ServingSettings, items: pl.Series) -> pl.Series:
    """The lists as they are written, String or Binary. Raises ServingError where int32 cannot hold an id."""
    if settings.encoding == "int32":
        numbers = _whole_numbers(items.explode(empty_as_null=False))
        ends = np.append(0, np.cumsum(items.list.len().to_numpy().astype(np.int64))) * 4
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(numbers)]
        return pl.Series(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(items), buffers))
    joined = items.list.join(",")
    if (
        joined.str.contains("%", literal=True).any()
        or (joined.str.count_matches(",", literal=True) + 1 != items.list.len()).any()
    ):
        quoted = (
            pl.element()
            .str.replace_all("%", "%25", literal=True)
            .str.replace_all(",", "%2C", literal=True)
        )
        joined = items.list.eval(quoted).list.join(",")
    return joined


def _whole_numbers(ids: pl.Series) -> NDArray[np.int32]:
    """The ids as little-endian int32. Raises ServingError naming the first that would not come back as it is."""
    packed = ids.cast(pl.Int32, strict=False)
    if not packed.has_nulls():
        numbers: NDArray[np.int32] = packed.to_numpy().astype("<i4", copy=False)
        digits = len(ids) + sum(np.count_nonzero(numbers >= 10**power) for power in range(1, 10))
        # an id written in another way, such as 007 or +7, is longer than its number
        if numbers.min() >= 0 and ids.str.len_bytes().sum() == digits:
            return numbers
    other = ids.filter(~packed.cast(pl.String).eq_missing(ids) | (packed < 0))
    raise ServingError(
        f"item id {other[0]!r} is no whole number below 2,147,483,648: serving.encoding must be text"
    )


def _binary(texts: pl.Series) -> pa.LargeBinaryArray:
    array: Any = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    return array.cast(pa.large_binary())


def _data_bytes(array: pa.LargeBinaryArray) -> int:
    offsets = np.frombuffer(array.buffers()[1], np.int64)[
        array.offset : array.offset + len(array) + 1
    ]
    return int(offsets[-1] - offsets[0])


def _utf8(text: str) -> bytes:
    # a stranger's id may hold what UTF-8 cannot (a lone surrogate from JSON): look it up, do not fail on it
    return text.encode("utf-8", "surrogatepass")
