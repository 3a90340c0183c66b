"""What a run takes: seconds, bytes, memory, money."""

import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


class CountedStorage(Storage):
    """A storage that counts the bytes of the objects that go through it."""

    bytes_read = 0
    bytes_written = 0

    def get(self, path: str) -> bytes:
        data = super().get(path)
        self.bytes_read += len(data)
        return data

    def put(self, path: str, data: bytes | Path) -> None:
        super().put(path, data)
        self.bytes_written += data.stat().st_size if isinstance(data, Path) else len(data)


class Meter:
    """The seconds of each phase, and the cost of all since `started`, a value of `time.monotonic`."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        log.info("phase=%s", name)
        self._began[name] = time.monotonic()
        try:
            yield
        finally:
            self._ended[name] = time.monotonic()
            log.info(
                "phase=%s seconds=%.2f peak_memory_mib=%d",
                name,
                self.seconds[name],
                peak_memory() >> 20,
            )

    @property
    def seconds(self) -> dict[str, float]:
        """Of each phase; of one that is not over, the seconds so far."""
        now = time.monotonic()
        return {
            name: round(self._ended.get(name, now) - began, 3)
            for name, began in self._began.items()
        }

    def cost(self, price_per_hour: float | None) -> float | None:
        """Of the time since the start; None without a price."""
        return (
            None
            if price_per_hour is None
            else round(price_per_hour * (time.monotonic() - self._started) / 3600, 6)
        )


def peak_memory() -> int:
    """The most bytes that this process has had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_memory() -> int:
    """Bytes that this process may have: the machine's, or its container's where that has fewer (Linux, control groups 2)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no control group of its own, or "max"
        return machine
