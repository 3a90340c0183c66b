"""Room on the local disk for rows on their way: emptied after use, and after a kill by whoever uses it next."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "recsys-rows-"


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder below TMPDIR until the block ends; the folders of processes that were killed are removed first.

    A process holds a lock on its folder, which the kernel releases however the process ends.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, another user's, or somebody else's to remove
            if any(left.iterdir()):  # an empty one may be so new that it is not locked yet
                with _locked(left):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _locked(Path(folder)):
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError when another holds the lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
