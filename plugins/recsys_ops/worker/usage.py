"""What a run uses: seconds, bytes, memory, money."""

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)


class CountedStorage(Storage):
    """A storage that counts the bytes it reads and writes."""

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
    """Measures the seconds of each phase, and the cost since the process started.

    started : by `time.monotonic`
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block as a phase; a line in the log at its start and at its end."""
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
        """The seconds of each phase by its name; for a phase that still runs, those so far."""
        now = time.monotonic()
        return {
            name: round(self._ended.get(name, now) - began, 3)
            for name, began in self._began.items()
        }

    def cost(self, price_per_hour: float | None) -> float | None:
        """The cost since the start, in the currency of the price; None without a price."""
        if price_per_hour is None:
            return None
        return round(price_per_hour * (time.monotonic() - self._started) / 3600, 6)


def peak_memory() -> int:
    """The largest number of bytes that this process has had in memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
