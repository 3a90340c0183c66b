import zlib
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.redis_lists import lists_of

from recsys_ops.errors import ServingError
from recsys_ops.serving.layout import (
    EncodedVersion,
    bucket_of,
    decode_items,
    encode_version,
    field_of,
    live_key,
    next_key,
    previous_key,
)
from recsys_ops.settings import ServingSettings

SETTINGS = ServingSettings(buckets=64)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def bucket(content: EncodedVersion, number: int) -> dict[bytes, bytes]:
    """The fields and values of one bucket's hash."""
    own = slice(content.starts[number], content.starts[number + 1])
    return {
        **content.common,
        **dict(zip(content.fields[own].to_pylist(), content.values[own].to_pylist(), strict=True)),
    }


def test_a_list_is_found_by_crc32_and_read_by_splitting_and_unquoting() -> None:
    content = encode_version(SETTINGS, "v1", lists_of({"ann": ["i1", "i,2", "3%"]}, ["p1", "p2"]))

    fields = bucket(content, zlib.crc32(b"ann") % 64)

    assert {field: value.decode() for field, value in fields.items()} == {
        b"ann": "i1,i%2C2,3%25",
        b"_popular": "p1,p2",
        b"_version": "v1",
        b"_layout": "text/64",
    }
    assert [unquote(item) for item in fields[b"ann"].decode().split(",")] == ["i1", "i,2", "3%"]


def test_the_three_keys_of_a_bucket_share_one_cluster_slot() -> None:
    keys = live_key(SETTINGS, 17), next_key(SETTINGS, 17), previous_key(SETTINGS, 17)

    assert keys == ("recsys:{17}", "recsys:{17}:next", "recsys:{17}:previous")


@given(st.dictionaries(IDS, st.lists(IDS, min_size=1, max_size=4), min_size=1, max_size=30), IDS)
def test_every_list_is_found_and_decoded_as_it_was(own: dict[str, list[str]], popular: str) -> None:
    content = encode_version(
        SETTINGS, "v1", lists_of(own, [popular], similar=own, bought_together=own, categories=own)
    )

    for kind in ("user", "similar", "bought_together", "category"):
        for name, items in own.items():
            fields = bucket(content, bucket_of(SETTINGS, name))
            assert decode_items(fields[b"_layout"], fields[field_of(kind, name)]) == items
            assert decode_items(fields[b"_layout"], fields[b"_popular"]) == [popular]


def test_batches_cover_every_bucket_once_and_are_bounded() -> None:
    content = encode_version(
        SETTINGS, "v1", lists_of({f"u{number}": ["i"] for number in range(1000)}, ["p"])
    )

    batches = list(content.batches(100))

    assert [number for batch in batches for number in batch] == list(range(64))
    assert max(sum(len(bucket(content, number)) for number in batch) for batch in batches) < 300


@pytest.mark.parametrize(
    ("users", "popular", "message"),
    [
        ({"ann": ["i"]}, [], "no popular items"),
        ({}, ["p"], "has no recommendations"),
        ({"ann": []}, ["p"], "has no recommendations"),
        ({None: ["i"]}, ["p"], "have an empty id"),
        ({"ann": ["i", None]}, ["p"], "have an empty id"),
        ({"ann": ["i", ""]}, ["p"], "have an empty id"),
    ],
)
def test_a_version_with_nothing_to_serve_is_refused(
    users: Mapping[str, Sequence[str]], popular: Sequence[str], message: str
) -> None:
    with pytest.raises(ServingError, match=message):
        encode_version(SETTINGS, "v1", lists_of(users, popular))


def test_a_user_with_two_lists_is_refused_by_name() -> None:
    duplicated = lists_of({"ann": ["i1"], "bob": ["i1"]}, ["p"])
    duplicated.users[1, "id"] = "ann"

    with pytest.raises(ServingError, match="'ann' twice"):
        encode_version(SETTINGS, "v1", duplicated)


@pytest.mark.parametrize("item", ["A-17", "2147483648", "1.5", "007", "+7", "-7", "-0", " 7"])
def test_ids_that_int32_would_change_are_refused(item: str) -> None:
    packed = ServingSettings(buckets=64, encoding="int32")

    for lists in (lists_of({"ann": ["1", item]}, ["1"]), lists_of({"ann": ["1"]}, ["1", item])):
        with pytest.raises(ServingError, match=r"serving\.encoding must be text"):
            encode_version(packed, "v1", lists)
