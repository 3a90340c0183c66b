"""The Redis layout: the key and the field of a list, and its encoding.

All lists are spread over `buckets` hashes; the bucket of an id is crc32(UTF-8 id) mod buckets. Each
bucket has three keys of one cluster slot (the literal braces are Redis' hash tag): ``recsys:{17}``
is live, ``recsys:{17}:next`` is staged, ``recsys:{17}:previous`` was live before. ``recsys:lock``
is the lock of publishing. The fields of a bucket:

- ``<user id>``: the user's items, best first. A user id that begins with ``_`` gets one more ``_``
  in front, so that no user id equals another field.
- ``_similar:<item id>``: similar items.
- ``_bought_together:<item id>``: items that are bought together with the item.
- ``_category:<category>``: the popular items of a category.
- ``_popular``: the list for unknown users, the same in every bucket.
- ``_trending``: the trending items, the same in every bucket; missing when nothing is trending.
- ``_version``: the model version, the same in every bucket.
- ``_layout``: encoding and number of buckets, such as ``text/4096``, the same in every bucket.

A list as ``text`` is its ids, separated by commas. A comma in an id is ``%2C`` and a ``%`` is
``%25``, so that any function that decodes URLs can read it. As ``int32`` it is four bytes for each
id, little-endian.

A reader sends one ``HMGET`` of field, ``_popular`` and ``_version`` on one key, so an answer is
always of one version.
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

ListKind = Literal["user", "similar", "bought_together", "category"]
_PREFIX: dict[ListKind, str] = {
    "user": "",
    "similar": "_similar:",
    "bought_together": "_bought_together:",
    "category": "_category:",
}


def live_key(settings: ServingSettings, bucket: int) -> str:
    """The key that readers read."""
    return f"{settings.prefix}:{{{bucket}}}"


def next_key(settings: ServingSettings, bucket: int) -> str:
    """The key of the staged version."""
    return f"{live_key(settings, bucket)}:next"


def previous_key(settings: ServingSettings, bucket: int) -> str:
    """The key of the version that was live before."""
    return f"{live_key(settings, bucket)}:previous"


def lock_key(settings: ServingSettings) -> str:
    """The key of the lock that a publisher holds while it swaps."""
    return f"{settings.prefix}:lock"


def bucket_of(settings: ServingSettings, name: str) -> int:
    """The bucket of a user's, an item's or a category's lists."""
    return zlib.crc32(_utf8(name)) % settings.buckets


def field_of(kind: ListKind, name: str) -> bytes:
    """The field of the list of a user, an item or a category."""
    return _utf8(f"_{name}" if kind == "user" and name.startswith("_") else _PREFIX[kind] + name)


def layout_of(settings: ServingSettings) -> bytes:
    """The value of the field ``_layout``."""
    return f"{settings.encoding}/{settings.buckets}".encode()


def decode_items(layout: bytes, value: bytes) -> list[str]:
    """The ids of an encoded list; its bucket's layout names the encoding."""
    if layout.startswith(b"int32"):
        return [str(number) for number in np.frombuffer(value, "<i4").tolist()]
    if b"%" not in value:
        return value.decode().split(",")
    return [unquote_to_bytes(item).decode() for item in value.split(b",")]


@dataclass(frozen=True)
class VersionLists:
    """All lists of a version.

    users, similar, bought_together, categories : DataFrame of id (String) and items (List[String],
        item ids, best first), each id once
    popular, trending : item ids, best first
    """

    users: pl.DataFrame
    similar: pl.DataFrame
    bought_together: pl.DataFrame
    categories: pl.DataFrame
    popular: Sequence[str]
    trending: Sequence[str]


@dataclass(frozen=True)
class EncodedVersion:
    """All that one version writes to Redis.

    users : number of users with a list
    common : the fields and values that are the same in every bucket
    fields, values : LargeBinaryArray, (n_lists,), ordered by bucket
    starts : (n_buckets + 1,), the lists of bucket b are starts[b] … starts[b + 1]
    """

    version: str
    users: int
    common: Mapping[bytes, bytes]
    fields: pa.LargeBinaryArray
    values: pa.LargeBinaryArray
    starts: Sequence[int]

    def batches(self, lists: int) -> Iterator[range]:
        """Ranges of bucket numbers, in order, each with about `lists` lists."""
        buckets = len(self.starts) - 1
        step = max(1, lists * buckets // (len(self.fields) + buckets))
        return (range(first, min(first + step, buckets)) for first in range(0, buckets, step))

    @property
    def size(self) -> int:
        """Bytes of all fields and values, without Redis' own overhead."""
        common = sum(len(field) + len(value) for field, value in self.common.items())
        return _data_bytes(self.fields) + _data_bytes(self.values) + (len(self.starts) - 1) * common


def encode_version(settings: ServingSettings, version: str, lists: VersionLists) -> EncodedVersion:
    """Encode a version's lists and sort them by bucket.

    An empty list is left out: readers then get the popular items, as for an unknown user. Raises
    ServingError where there is nothing to serve, an id is missing or occurs twice, or an id does
    not fit the encoding.
    """
    if not lists.popular:
        raise ServingError(
            f"version {version} has no popular items for unknown users: check popular.parquet"
        )
    frames: dict[ListKind, pl.DataFrame] = {
        "user": lists.users,
        "similar": lists.similar,
        "bought_together": lists.bought_together,
        "category": lists.categories,
    }
    for kind, frame in frames.items():
        _check(version, kind, frame)
    if not lists.users["items"].list.len().sum():
        raise ServingError(
            f"version {version} has no recommendations: check recommendations.parquet"
        )
    all_lists = pl.concat(
        frame.filter(pl.col("items").list.len() > 0).select("id", "items", field=_field(kind))
        for kind, frame in frames.items()
    )
    by_bucket = pl.DataFrame(
        {
            "bucket": _buckets(all_lists["id"], settings.buckets),
            "field": all_lists["field"],
            "value": _encode_lists(settings, all_lists["items"]),
        }
    ).sort("bucket", maintain_order=True)
    overall = {POPULAR: lists.popular, TRENDING: lists.trending}
    return EncodedVersion(
        version=version,
        users=int((lists.users["items"].list.len() > 0).sum()),
        common={
            VERSION: version.encode(),
            LAYOUT: layout_of(settings),
            **{
                name: _encode_lists(settings, pl.Series([items])).cast(pl.Binary)[0]
                for name, items in overall.items()
                if items
            },
        },
        fields=_binary(by_bucket["field"]),
        values=_binary(by_bucket["value"]),
        starts=np.searchsorted(
            by_bucket["bucket"].to_numpy(), np.arange(settings.buckets + 1)
        ).tolist(),
    )


def _check(version: str, kind: ListKind, frame: pl.DataFrame) -> None:
    ids, items = frame["id"], frame["items"].explode(empty_as_null=False)
    if ids.has_nulls() or items.has_nulls() or items.str.len_bytes().min() == 0:
        raise ServingError(
            f"the {kind} lists of version {version} have an empty id: train it again"
        )
    if ids.n_unique() < len(ids):
        duplicate = ids.filter(ids.is_duplicated())[0]
        raise ServingError(
            f"the {kind} lists of version {version} have {duplicate!r} twice: train it again"
        )


def _field(kind: ListKind) -> pl.Expr:
    name = pl.col("id")
    if kind == "user":
        return pl.when(name.str.starts_with("_")).then("_" + name).otherwise(name)
    return _PREFIX[kind] + name


def _buckets(ids: pl.Series, buckets: int) -> pl.Series:
    crc = np.fromiter(map(zlib.crc32, ids.cast(pl.Binary).to_list()), np.uint32, len(ids))
    return pl.Series(crc % buckets)


def _encode_lists(settings: ServingSettings, items: pl.Series) -> pl.Series:
    """The encoded lists, String or Binary. Raises ServingError where int32 cannot hold an id."""
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
    """The ids as little-endian int32.

    Raises ServingError naming the first id that would be decoded to another one.
    """
    packed = ids.cast(pl.Int32, strict=False)
    if not packed.has_nulls():
        numbers: NDArray[np.int32] = packed.to_numpy().astype("<i4", copy=False)
        digits = len(ids) + sum(np.count_nonzero(numbers >= 10**power) for power in range(1, 10))
        # an id such as 007 or +7 is longer than its number
        if numbers.min() >= 0 and ids.str.len_bytes().sum() == digits:
            return numbers
    changed = ids.filter(~packed.cast(pl.String).eq_missing(ids) | (packed < 0))
    raise ServingError(
        f"item id {changed[0]!r} is no whole number below 2,147,483,648: "
        "serving.encoding must be text"
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
    # JSON can hold a lone surrogate, which UTF-8 cannot: such an id is unknown, and no error
    return text.encode("utf-8", "surrogatepass")
