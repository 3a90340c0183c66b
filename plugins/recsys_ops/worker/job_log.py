"""The worker's log as an object in storage, where everybody can read it."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from recsys_ops.errors import StorageError
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_WRITE_EVERY_S = 3.0


def formatter() -> logging.Formatter:
    """The format of the worker's log lines: UTC time, level, message."""
    line_format = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    line_format.converter = time.gmtime
    return line_format


class StoredLog(logging.Handler):
    """Writes everything that is logged in its block to an object.

    The object is replaced at the start, every few seconds if the log has grown, and at the end. If
    storage refuses it, a warning is logged once.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        super().__init__()
        self.setFormatter(formatter())
        self._storage, self._path = storage, path
        self._lines: list[str] = []
        self._n_written, self._has_warned = -1, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_regularly, name="log", daemon=True)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger().removeHandler(self)
        self._ended.set()
        self._thread.join()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def _write_regularly(self) -> None:
        ended = False
        while not ended:
            self._write()
            ended = self._ended.wait(_WRITE_EVERY_S)
        self._write()

    def _write(self) -> None:
        lines = list(self._lines)
        if len(lines) == self._n_written:
            return
        try:
            self._storage.put(self._path, "".join(f"{line}\n" for line in lines).encode())
            self._n_written, self._has_warned = len(lines), False
        except StorageError as error:
            if not self._has_warned:
                log.warning("the log is not in storage: %s", error)
            self._has_warned = True
