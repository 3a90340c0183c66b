"""A temporary folder on the local disk, deleted after use."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "recsys-rows-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make an empty folder below TMPDIR and delete it after the block.

    The folders that killed processes left are deleted first. A process holds a lock on its folder;
    the kernel releases the lock however the process ends.
    """
    for leftover in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, or owned by somebody else
            if any(leftover.iterdir()):  # an empty folder may be too new to have its lock
                with _locked(leftover):
                    shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _locked(Path(folder)):
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError when another process holds the lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
