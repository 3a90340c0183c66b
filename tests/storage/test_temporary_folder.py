"""Temporary folders: the next use deletes those of killed processes."""

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import pytest

from recsys_ops.storage.temporary_folder import temporary_folder

PROCESSES = multiprocessing.get_context("forkserver")


def write_and_die(temporary: Path) -> None:
    tempfile.tempdir = str(temporary)
    with temporary_folder() as folder:
        (folder / "rows.parquet").write_bytes(b"personal")
        os.kill(os.getpid(), signal.SIGKILL)


def test_folders_of_killed_processes_are_deleted_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = PROCESSES.Process(target=write_and_die, args=(tmp_path,))
    process.start()
    process.join()
    (left,) = tmp_path.glob("*/rows.parquet")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others, new = tmp_path / "recsys-else", tmp_path / "recsys-rows-new"
    for folder in (others, new):
        folder.mkdir()
    (others / "file").touch()
    with temporary_folder() as first:
        (first / "rows.parquet").touch()
        with temporary_folder() as second:
            assert not left.parent.exists()
            assert sorted(tmp_path.iterdir()) == sorted([first, second, others, new])
        assert [*first.iterdir()] == [first / "rows.parquet"]
    assert sorted(tmp_path.iterdir()) == [others, new]
