"""Generations: objects that are never replaced. Each writing adds a numbered one beside the others.

Deliveries and catalogues are stored in this way. All days share one sequence of numbers, so a
number tells which of two objects was written last, of different days as well. No clock is asked.
"""

import hashlib
import re
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from recsys_ops.errors import StorageError
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage


class Generation(NamedTuple):
    """A stored object. Tuples sort from old to new; of equal numbers the later day counts as newer.

    digest : the first 8 hexadecimal digits of the SHA-256 of its bytes
    written : by the storage's clock, only for people to read
    """

    number: int
    day: date
    digest: str
    path: str
    written: datetime


def generations(storage: Storage, kind: str, day: date | None = None) -> list[Generation]:
    """The generations of a kind, of all days or of one, from old to new."""
    prefix = kind if day is None else paths.of_day(kind, day)
    stored = []
    for path, written in storage.write_times(prefix).items():
        parts = paths.parse(path)
        match = parts and re.fullmatch(r"(\d{6,})-([0-9a-f]{8})\.parquet", parts.name)
        if parts and match:
            stored.append(Generation(int(match[1]), parts.day, match[2], path, written))
    return sorted(stored)


def current_generation(storage: Storage, kind: str, day: date) -> str:
    """The path of the newest generation of a day. Raises StorageError when there is none."""
    stored = generations(storage, kind, day)
    if not stored:
        raise StorageError(
            f"{storage.url(paths.of_day(kind, day))} is not there: "
            "run the task that writes it first"
        )
    return stored[-1].path


def write_generation(storage: Storage, kind: str, day: date, data: bytes | Path) -> str:
    """Write the next generation of a day, from bytes or a local file; returns its path.

    If the newest generation of all days is this day's and has the same bytes, it is written again
    instead. So a task that runs twice leaves what it leaves when it runs once.
    """
    if isinstance(data, Path):
        with data.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    else:
        digest = hashlib.sha256(data).hexdigest()[:8]
    newest = next(reversed(generations(storage, kind)), None)
    if newest and (newest.day, newest.digest) == (day, digest):
        path = newest.path
    else:
        path = paths.generation(kind, day, newest.number + 1 if newest else 1, digest)
    storage.put(path, data)
    return path
