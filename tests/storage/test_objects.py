"""Objects in a folder and in Azure's blob storage: whole or not there, whatever the disk and the network do."""

import multiprocessing
import resource
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from azurite.server import ACCOUNT, Azurite
from azurite.weather import Weather, weather
from test_history import FIRST, SUNDAY, counts, events

from recsys_ops import history
from recsys_ops.errors import StorageError
from recsys_ops.settings import HistorySettings
from recsys_ops.storage import Storage

FRAME = pl.DataFrame({"number": range(200_000)})
PROCESSES = multiprocessing.get_context("forkserver")


def test_what_was_put_is_got_listed_replaced_and_deleted(storage: Storage) -> None:
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


def test_rows_and_the_facts_about_them_come_back(storage: Storage) -> None:
    storage.write_parquet("a.parquet", FRAME, {"first_day": "2026-01-01"})
    storage.sink_parquet("b.parquet", FRAME.lazy(), {"first_day": "2026-01-01"})
    for path in ("a.parquet", "b.parquet"):
        rows, facts = storage.scan_parquet(path)
        assert rows.collect().equals(FRAME)
        assert facts["first_day"] == "2026-01-01"
        assert storage.read_parquet(path).equals(FRAME)


def test_half_an_object_is_named_and_the_next_step_said(storage: Storage) -> None:
    storage.write_parquet("a.parquet", FRAME)
    storage.put("a.parquet", storage.get("a.parquet")[:1000])
    for read in (storage.read_parquet, storage.scan_parquet):
        with pytest.raises(StorageError, match=r"a.parquet is no Parquet .*run the task that writes it again") as error:
            read("a.parquet")
        assert "\n" not in str(error.value)


WRITES: dict[str, Callable[[Storage], None]] = {
    "put": lambda storage: storage.put("a.parquet", bytes(1_000_000)),
    "write_parquet": lambda storage: storage.write_parquet("a.parquet", FRAME),
    "sink_parquet": lambda storage: storage.sink_parquet("a.parquet", FRAME.lazy()),
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
@pytest.mark.parametrize("kind", get_args(Weather))
def test_bad_weather_costs_time_and_nothing_else(azurite_server: Azurite, kind: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"{azurite_server.container()}/shop"
    with weather(azurite_server.url, kind, every=2) as url:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        storage = Storage(root, azurite_server.options)
        storage.sink_parquet("raw/0", FRAME.lazy())
        assert storage.read_parquet("raw/0").equals(FRAME)
        assert storage.list("raw") == ["raw/0"]
        storage.delete("raw/0")
        assert not storage.exists("raw/0")
    # an answer that breaks off makes Delta begin the whole commit again, some 20 requests
    with weather(azurite_server.url, kind, every=25 if kind == "cut within" else 5) as url:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        for count in (3, 5):
            history.replace_days(storage, events(FIRST, count), FIRST, FIRST)
        assert counts(storage) == {FIRST: 5}


@pytest.mark.azurite
def test_the_documented_rights_on_the_container_are_enough_and_fewer_are_named(azurite_server: Azurite) -> None:
    container = azurite_server.container()

    def account(rights: str) -> Storage:
        options = {"account_name": ACCOUNT, "use_emulator": "true", "sas_token": azurite_server.sas(container, rights)}
        return Storage(f"{container}/shop", options)

    full, reader = account("rwdl"), account("rl")
    full.put("a", b"1")
    full.put("b", b"1")
    full.delete("b")
    for day in (FIRST, FIRST + timedelta(days=1)):
        history.replace_days(full, events(day, 2), day, day)
    history.tidy(full, SUNDAY, HistorySettings(retention_days=2))
    assert (reader.get("a"), reader.list("")[0], counts(reader)) == (b"1", "a", {FIRST + timedelta(days=1): 2})
    for write in (lambda: reader.put("a", b"2"), lambda: history.replace_days(reader, events(FIRST, 1), FIRST, FIRST)):
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
