import json
import zlib

import polars as pl
import pytest

from recsys_ops.errors import ServingError
from recsys_ops.serving.layout import bucket_of, encode, live_key, next_key, previous_key
from recsys_ops.settings import ServingSettings

SETTINGS = ServingSettings(buckets=64, top_n=2)


def recommend(lists: dict[str | None, list[str | None]]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [*lists], "items": [*lists.values()]}, schema={"user_id": str, "items": pl.List(str)})


def test_a_reader_in_any_language_finds_a_user_by_crc32_and_reads_json() -> None:
    content = encode(SETTINGS, "v1", recommend({"ann": ["i1", 'i"2', "i3"]}), ["p1", "p2", "p3"])

    bucket = content.bucket(zlib.crc32(b"ann") % 64)

    assert {field: value.decode() for field, value in bucket.items()} == {
        b"ann": '["i1","i\\"2"]',
        b"_popular": '["p1","p2"]',
        b"_version": "v1",
    }
    assert json.loads(bucket[b"ann"]) == ["i1", 'i"2']


def test_the_three_keys_of_a_bucket_share_one_cluster_slot() -> None:
    keys = live_key(SETTINGS, 17), next_key(SETTINGS, 17), previous_key(SETTINGS, 17)

    assert keys == ("recsys:{17}", "recsys:{17}:next", "recsys:{17}:previous")


def test_every_user_is_in_the_bucket_a_reader_looks_into() -> None:
    users = [f"user-{number}" for number in range(500)] + ["", "_popular", "Zoë", "😀"]
    content = encode(SETTINGS, "v1", recommend({user: [f"for {user}"] for user in users}), ["p"])

    for user in users:
        field = ("_" + user if user.startswith("_") else user).encode()
        assert json.loads(content.bucket(bucket_of(SETTINGS, user))[field]) == [f"for {user}"]


def test_batches_cover_every_bucket_once_and_are_bounded() -> None:
    content = encode(SETTINGS, "v1", recommend({f"u{number}": ["i"] for number in range(1000)}), ["p"])

    batches = list(content.batches(100))

    assert [bucket for batch in batches for bucket in batch] == list(range(64))
    assert max(sum(len(content.bucket(bucket)) for bucket in batch) for batch in batches) < 300


@pytest.mark.parametrize(
    ("lists", "popular", "said"),
    [
        ({"ann": ["i"]}, [], "no popular items"),
        ({}, ["p"], "for nobody"),
        ({"ann": []}, ["p"], "for nobody"),
        ({None: ["i"]}, ["p"], "empty user or item id"),
        ({"ann": ["i", None]}, ["p"], "empty user or item id"),
    ],
)
def test_a_version_with_nothing_to_serve_is_refused(
    lists: dict[str | None, list[str | None]], popular: list[str], said: str
) -> None:
    with pytest.raises(ServingError, match=said):
        encode(SETTINGS, "v1", recommend(lists), popular)


def test_a_user_with_two_lists_is_refused_by_name() -> None:
    twice = pl.concat([recommend({"ann": ["i1"], "bob": ["i1"]}), recommend({"ann": ["i2"]})])

    with pytest.raises(ServingError, match="user 'ann' twice"):
        encode(SETTINGS, "v1", twice, ["p"])
