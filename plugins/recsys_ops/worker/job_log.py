"""The worker's log as an object in storage, for whoever cannot see its standard error."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from recsys_ops.errors import StorageError
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_EVERY_S = 3.0


def formatter() -> logging.Formatter:
    """A line of the worker's log, wherever it goes: UTC time, level, message."""
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    lines.converter = time.gmtime
    return lines


class StoredLog(logging.Handler):
    """All that is logged until the block ends; the object is replaced at the start, every few seconds if it grew, at the end.

    A storage that does not take it is told of in the log, once.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        super().__init__()
        self.setFormatter(formatter())
        self._storage, self._path = storage, path
        self._lines: list[str] = []
        self._stored, self._lost = -1, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="log", daemon=True)

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
        self._over.set()
        self._thread.join()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def _keep(self) -> None:
        over = False
        while not over:
            self._write()
            over = self._over.wait(_EVERY_S)
        self._write()

    def _write(self) -> None:
        lines = list(self._lines)
        if len(lines) == self._stored:
            return
        try:
            self._storage.put(self._path, "".join(f"{line}\n" for line in lines).encode())
            self._stored, self._lost = len(lines), False
        except StorageError as error:
            if not self._lost:
                log.warning("the log is not in storage: %s", error)
            self._lost = True
