"""Objects in a folder and in Azure's blob storage: complete or missing, never a part of one."""

import multiprocessing
import os
import resource
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import get_args

import obstore
import polars as pl
import pytest
from obstore.store import ObjectStore
from support.azurite.server import ACCOUNT, Azurite
from support.azurite.weather import Weather, weather
from support.history_rows import FIRST, SUNDAY, counts, events

from recsys_ops.errors import DamagedError, StorageError
from recsys_ops.history.table import apply_retention, replace_days
from recsys_ops.ingest.clean_day import run_step
from recsys_ops.ingest.deliveries import write_delivery
from recsys_ops.settings import CleaningSettings, HistorySettings
from recsys_ops.storage.objects import Storage

FRAME = pl.DataFrame({"number": range(200_000)})
PROCESSES = multiprocessing.get_context("forkserver")


def test_objects_are_written_read_listed_replaced_and_deleted(storage: Storage) -> None:
    storage.put("raw/day=1/a", b"old")
    storage.put("raw/day=1/a", b"new")
    storage.put("raw/day=2/b", b"")
    assert (storage.get("raw/day=1/a"), storage.get("raw/day=2/b")) == (b"new", b"")
    assert storage.list("raw") == ["raw/day=1/a", "raw/day=2/b"]
    storage.delete("raw/day=1/a")
    storage.delete("raw/day=1/a")
    assert [storage.exists(path) for path in ("raw/day=1/a", "raw/day=2/b")] == [False, True]
    with pytest.raises(StorageError, match=r"raw/day=1/a is not there"):
        storage.get("raw/day=1/a")


def test_rows_and_their_metadata_come_back(storage: Storage) -> None:
    storage.write_parquet("a.parquet", FRAME, {"first_day": "2026-01-01"})
    rows, metadata = storage.scan_parquet("a.parquet")
    assert rows.collect().equals(FRAME)
    assert metadata["first_day"] == "2026-01-01"
    assert storage.read_parquet("a.parquet").equals(FRAME)


def test_metadata_and_columns_of_an_object_need_only_its_footer(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_parquet("a.parquet", FRAME, {"first_day": "2026-01-01"})
    data = storage.get("a.parquet")
    fetched, get_range = [], obstore.get_range

    def counted(store: ObjectStore, path: str, *, start: int, length: int) -> obstore.Bytes:
        fetched.append(length)
        return get_range(store, path, start=start, length=length)

    monkeypatch.setattr(obstore, "get_range", counted)
    monkeypatch.delattr(obstore, "get")
    assert storage.metadata("a.parquet") == {"first_day": "2026-01-01"}
    assert storage.schema("a.parquet") == FRAME.schema
    assert sum(fetched) < len(data) / 50


def test_the_day_before_is_compared_by_its_footer(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, got = date(2026, 3, 2), []
    columns = (
        "row_id",
        "event_id",
        "recorded_at",
        "event_time",
        "user_id",
        "item_id",
        "event_type",
        "quantity",
        "price",
    )
    rows = pl.DataFrame({name: ["1"] for name in columns}).with_columns(
        recorded_at=datetime(2026, 3, 2, 1, tzinfo=UTC)
    )
    before = day - timedelta(days=1)
    delivery = write_delivery(storage, day, rows.lazy(), {day: 1}, "test")
    write_delivery(storage, before, rows.drop("price").lazy(), {before: 1}, "test")
    get = Storage.get
    monkeypatch.setattr(Storage, "get", lambda self, path: got.append(path) or get(self, path))
    assert run_step(storage, "align_schema", day, CleaningSettings())["drift"] == {"new": ["price"]}
    assert got == [delivery]


def test_half_written_files_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/the%20shop")
    storage.put("raw/day=1/a.parquet", b"1")
    storage.put("raw/day=1/a#b.parquet", b"1")
    half = tmp_path / "the shop" / "history" / "day=1" / "part.parquet#12"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"PAR1")
    now = datetime.now(UTC)
    assert storage.delete_half_written(now - timedelta(minutes=1)) == 0
    assert half.exists()
    assert storage.delete_half_written(now + timedelta(minutes=1)) == 1
    assert not half.exists()
    assert storage.list("") == ["raw/day=1/a#b.parquet", "raw/day=1/a.parquet"]


def add_names(root: str, options: dict[str, str], azurite: dict[str, str], writer: int) -> None:
    os.environ.update(azurite)
    storage = Storage(root, options)
    for number in range(8):
        name = f"{writer}-{number}"
        storage.update_json("models/live.json", lambda names, name=name: {**(names or {}), name: 1})


def test_of_writers_at_the_same_time_none_is_lost(storage: Storage) -> None:
    azurite = {name: value for name, value in os.environ.items() if name.startswith("AZUR")}
    processes = [
        PROCESSES.Process(target=add_names, args=(storage.root, storage.account, azurite, writer))
        for writer in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(storage.read_json("models/live.json")) == 24
    assert storage.list("") == ["models/live.json"]


def test_an_object_that_does_not_change_is_not_written(storage: Storage) -> None:
    storage.write_json("a.json", {"b": [1]})
    before = storage.write_times("")
    storage.update_json("a.json", lambda content: content)
    assert storage.write_times("") == before


def test_a_damaged_object_is_named_with_what_to_do(storage: Storage) -> None:
    storage.write_parquet("a.parquet", FRAME)
    storage.put("a.parquet", storage.get("a.parquet")[:1000])
    for read in (storage.read_parquet, storage.scan_parquet):
        with pytest.raises(
            StorageError, match=r"a.parquet is no Parquet .*run the task that writes it again"
        ) as error:
            read("a.parquet")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"x" * 4000])
def test_a_damaged_footer_is_told_from_a_storage_that_fails(storage: Storage, data: bytes) -> None:
    storage.put("a.parquet", data)
    for read in (storage.metadata, storage.schema, storage.read_parquet, storage.scan_parquet):
        with pytest.raises(DamagedError, match=r"a\.parquet is no Parquet"):
            read("a.parquet")
    with pytest.raises(StorageError, match="is not there") as error:
        storage.metadata("b.parquet")
    assert not isinstance(error.value, DamagedError)


@pytest.mark.parametrize("content", [b"", b"[]", b'"x"', b'{"day": 1}'])
def test_a_record_without_its_names_is_damaged(storage: Storage, content: bytes) -> None:
    storage.put("a.json", content)
    with pytest.raises(
        DamagedError, match=r"a\.json is (no JSON|damaged, it is not an object with)"
    ):
        storage.read_record("a.json", "day", "version")


WRITES: dict[str, Callable[[Storage], None]] = {
    "put": lambda storage: storage.put("a.parquet", bytes(1_000_000)),
    "write_parquet": lambda storage: storage.write_parquet("a.parquet", FRAME),
}


def write_on_a_full_disk(root: str, write: str, answer: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        WRITES[write](Storage(root))
    except StorageError as error:
        answer.write_text(str(error))


@pytest.mark.parametrize("write", WRITES)
def test_a_full_disk_is_named_and_leaves_the_old_object_whole(tmp_path: Path, write: str) -> None:
    storage, answer = Storage(f"file://{tmp_path}/blob"), tmp_path / "answer"
    storage.put("a.parquet", b"old")
    process = PROCESSES.Process(target=write_on_a_full_disk, args=(storage.root, write, answer))
    process.start()
    process.join()
    assert "a.parquet" in answer.read_text()
    assert storage.get("a.parquet") == b"old"
    assert storage.list("") == ["a.parquet"]


@pytest.mark.azurite
@pytest.mark.parametrize("disturbance", get_args(Weather))
def test_faults_of_the_network_cost_only_time(
    azurite_server: Azurite, disturbance: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"{azurite_server.container()}/shop"
    with weather(azurite_server.url, disturbance, every=2) as url:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        storage = Storage(root, azurite_server.options)
        storage.write_parquet("raw/0", FRAME)
        assert storage.read_parquet("raw/0").equals(FRAME)
        assert storage.list("raw") == ["raw/0"]
        storage.delete("raw/0")
        assert not storage.exists("raw/0")
    # after a broken response Delta repeats the whole commit, some 20 requests
    with weather(
        azurite_server.url, disturbance, every=25 if disturbance == "cut within" else 5
    ) as url:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        for count in (3, 5):
            replace_days(storage, events(FIRST, count), FIRST, FIRST)
        assert counts(storage) == {FIRST: 5}


@pytest.mark.azurite
def test_the_documented_rights_on_the_container_are_enough(
    azurite_server: Azurite,
) -> None:
    container = azurite_server.container()

    def account(rights: str) -> Storage:
        options = {
            "account_name": ACCOUNT,
            "use_emulator": "true",
            "sas_token": azurite_server.sas(container, rights),
        }
        return Storage(f"{container}/shop", options)

    full, reader = account("rwdl"), account("rl")
    full.put("a", b"1")
    full.put("b", b"1")
    full.delete("b")
    for day in (FIRST, FIRST + timedelta(days=1)):
        replace_days(full, events(day, 2), day, day)
    apply_retention(full, SUNDAY, HistorySettings(retention_days=2))
    assert (reader.get("a"), reader.list("")[0], counts(reader)) == (
        b"1",
        "a",
        {FIRST + timedelta(days=1): 2},
    )
    for write in (
        lambda: reader.put("a", b"2"),
        lambda: replace_days(reader, events(FIRST, 1), FIRST, FIRST),
    ):
        with pytest.raises(StorageError, match="cannot write") as error:
            write()
        assert "sig=" not in str(error.value).replace("sig=…", "")
        assert "\n" not in str(error.value)


@pytest.mark.azurite
def test_a_wrong_key_is_refused_without_being_shown(azurite_server: Azurite) -> None:
    options = {**azurite_server.options, "account_key": "bm90IHRoZSBrZXk="}
    with pytest.raises(StorageError, match=r"cannot write abfs://.*403") as error:
        Storage(azurite_server.container(), options).put("a", b"1")
    assert "bm90" not in str(error.value)
