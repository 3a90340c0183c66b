"""Objects in Google Cloud Storage, through the same `Storage` as a folder and Azure."""

import json
from collections.abc import Iterator
from typing import get_args

import polars as pl
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.azurite.weather import Weather, weather
from support.gcs_server import BUCKET, PAGE, Gcs, gcs

from recsys_ops.errors import StorageError
from recsys_ops.storage.objects import Storage

FRAME = pl.DataFrame({"number": range(200_000)})


@pytest.fixture
def bucket() -> Iterator[Gcs]:
    with gcs() as server:
        yield server


def test_objects_are_written_read_listed_replaced_and_deleted(bucket: Gcs) -> None:
    storage = bucket.storage()
    storage.put("jobs/day=1/a", b"old")
    storage.put("jobs/day=1/a", b"new")
    storage.write_json("jobs/day=2/b c.json", {"status": "succeeded"})
    assert (storage.get("jobs/day=1/a"), storage.read_json("jobs/day=2/b c.json")) == (
        b"new",
        {"status": "succeeded"},
    )
    assert storage.list("jobs") == ["jobs/day=1/a", "jobs/day=2/b c.json"]
    storage.delete("jobs/day=1/a")
    storage.delete("jobs/day=1/a")
    assert [storage.exists(path) for path in ("jobs/day=1/a", "jobs/day=2/b c.json")] == [
        False,
        True,
    ]
    with pytest.raises(StorageError, match=r"jobs/day=1/a is not there"):
        storage.get("jobs/day=1/a")


def test_more_objects_than_fit_a_page_are_listed(bucket: Gcs) -> None:
    storage = bucket.storage()
    names = [f"jobs/{number:03}" for number in range(PAGE + 10)]
    for name in names:
        storage.put(name, b"1")
    assert storage.list("jobs") == names


def test_rows_and_their_metadata_are_read_as_written(bucket: Gcs) -> None:
    storage = bucket.storage()
    storage.write_parquet("a.parquet", FRAME, {"first_day": "2026-01-01"})
    assert storage.read_parquet("a.parquet").equals(FRAME)
    assert storage.metadata("a.parquet") == {"first_day": "2026-01-01"}


def test_a_large_object_is_uploaded_in_parts_and_read_as_one(bucket: Gcs) -> None:
    data = bytes(range(256)) * 235_000  # 60 MB
    storage = bucket.storage()
    storage.put("large", data)
    assert list(bucket.objects) == ["recsys/large"]
    assert storage.get("large") == data


@pytest.mark.parametrize("kind", get_args(Weather))
def test_a_bad_connection_costs_only_time(bucket: Gcs, kind: Weather) -> None:
    with weather(bucket.url, kind, every=2) as url:
        storage = Storage(f"gs://{BUCKET}/recsys", {"service_account_key": bucket.key(url)})
        storage.write_parquet("a", FRAME)
        assert storage.read_parquet("a").equals(FRAME)
        assert storage.list("") == ["a"]
        storage.delete("a")
        assert not storage.exists("a")


def test_another_accounts_key_is_refused_without_being_shown(bucket: Gcs) -> None:
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = json.dumps({**json.loads(bucket.key()), "private_key": pem.decode()})
    with pytest.raises(StorageError, match=rf"cannot write gs://{BUCKET}/recsys/a.*401") as error:
        Storage(f"gs://{BUCKET}/recsys", {"service_account_key": key}).put("a", b"1")
    assert pem.decode().splitlines()[1] not in str(error.value)
    assert "Bearer" not in str(error.value)
