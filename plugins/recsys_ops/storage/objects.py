"""Objects in blob storage: one small door to `file://`, `abfs://` and `gs://`, whole objects, put in place atomically."""

import io
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
import polars as pl
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from recsys_ops.errors import StorageError
from recsys_ops.storage.scratch import scratch

log = logging.getLogger(__name__)

T = TypeVar("T")
_ATTEMPTS = 20
# Throttling, cut connections and server errors are retried by object_store itself: 10 times within 3 minutes, the pause
# doubling from 0.1 s. Its 30 s for one request are too few for a large block on a slow line.
_REQUEST_TIMEOUT = "300s"


class Storage:
    """The objects below a root URL.

    `options` are object_store's keys of the account (``account_name``, ``account_key``, …); what is not among them comes from
    the environment (``AZURE_STORAGE_ACCOUNT_NAME``, …). Plain HTTP is spoken only where ``endpoint`` says so.
    """

    def __init__(self, root: str, options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self.account = {} if self.root.startswith("file:") else dict(options or {})

    @property
    def options(self) -> dict[str, str]:
        """The account and the client's manners as Delta and Polars take them."""
        return (
            {}
            if self.root.startswith("file:")
            else {**self.account, "allow_http": "true", "timeout": _REQUEST_TIMEOUT}
        )

    def url(self, path: str) -> str:
        return f"{self.root}/{path}"

    @cached_property
    def _store(self) -> ObjectStore:
        try:
            if self.root.startswith("file:"):
                return from_url(self.root, mkdir=True)
            client = {"allow_http": True, "timeout": _REQUEST_TIMEOUT}
            return from_url(self.root, client_options=client, **self.account)  # type: ignore[call-overload, no-any-return]
        except (BaseError, ValueError, OSError) as error:
            raise StorageError(
                f"cannot open storage {self.root}: {error_reason(error)}; check storage.root and its connection"
            ) from error

    def put(self, path: str, data: bytes | Path) -> None:
        """Write a whole object, from bytes or a local file; a reader sees the old bytes or the new ones, never a part."""
        try:
            obstore.put(self._store, path, data)
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot write {self.url(path)}: {error_reason(error)}") from error

    def get(self, path: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.url(path)} is not there: run the task that writes it first"
            ) from error
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read {self.url(path)}: {error_reason(error)}") from error

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            retry(lambda: obstore.delete(self._store, path))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot delete {self.url(path)}: {error_reason(error)}") from error

    def exists(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read {self.url(path)}: {error_reason(error)}") from error
        return True

    def list(self, prefix: str) -> list[str]:
        """The paths below a prefix, sorted."""
        return sorted(self.written(prefix))

    def written(self, prefix: str) -> dict[str, datetime]:
        """The paths below a prefix, each with the time at which the store got the object."""
        try:
            found = retry(lambda: obstore.list(self._store, prefix).collect())
            return {str(entry["path"]): entry["last_modified"] for entry in found}
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot list {self.url(prefix)}: {error_reason(error)}") from error

    def sweep(self, before: datetime) -> int:
        """Remove what writers killed before a time left half written in a folder; returns the number of files.

        Only a folder keeps such files, and no other method sees them. Azure drops half an upload itself, after a week.
        """
        swept = 0
        if self.root.startswith("file:"):
            try:
                for path in Path(url2pathname(urlsplit(self.root).path)).rglob("*#*"):
                    with suppress(FileNotFoundError):  # whole by now, under its own name
                        if (
                            re.search(r"#\d+$", path.name)
                            and path.stat().st_mtime < before.timestamp()
                        ):
                            path.unlink()
                            swept += 1
            except OSError as error:
                raise StorageError(
                    f"cannot clear {self.root} of half-written files: {error_reason(error)}"
                ) from error
        return swept

    def write_json(self, path: str, value: Any) -> None:
        self.put(
            path, json.dumps(value, indent=2, sort_keys=True, default=str, allow_nan=False).encode()
        )

    def read_json(self, path: str) -> Any:
        try:
            return json.loads(self.get(path))
        except ValueError as error:
            raise StorageError(
                f"{self.url(path)} is no JSON ({error}): run the task that writes it again"
            ) from error

    def write_parquet(
        self, path: str, frame: pl.DataFrame, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a frame, with facts that must never part from it in the file's own metadata."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", metadata=dict(metadata or {}))
        self.put(path, buffer.getvalue())

    def sink_parquet(
        self, path: str, frame: pl.LazyFrame, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a lazy frame while it is computed; memory does not grow with its rows, the disk holds it once meanwhile."""
        with scratch() as folder:
            file = folder / "object.parquet"
            try:
                frame.sink_parquet(
                    file,
                    compression="zstd",
                    compression_level=1,
                    metadata=dict(metadata or {}),
                    maintain_order=True,
                )
                obstore.put(self._store, path, file)
            except (BaseError, OSError, pl.exceptions.PolarsError) as error:
                raise StorageError(
                    f"cannot write {self.url(path)}: {error_reason(error)}"
                ) from error

    def scan_parquet(self, path: str) -> tuple[pl.LazyFrame, dict[str, str]]:
        """The object as a lazy frame over its compressed bytes, and its metadata."""
        return self.open_parquet(path, self.get(path))

    def open_parquet(self, path: str, data: bytes) -> tuple[pl.LazyFrame, dict[str, str]]:
        """As `scan_parquet`, of an object whose bytes are at hand."""
        try:
            # row groups would be tried against their statistics, which a function of ours cannot answer
            return pl.scan_parquet(data, use_statistics=False), _facts(data)
        except pl.exceptions.PolarsError as error:
            raise StorageError(
                f"{self.url(path)} is no Parquet ({error_reason(error)}): run the task that writes it again"
            ) from error

    def facts(self, path: str) -> dict[str, str]:
        """The metadata of a Parquet object, of which only the footer is fetched."""
        return self._footer(path, _facts)

    def schema(self, path: str) -> pl.Schema:
        """The columns of a Parquet object, of which only the footer is fetched."""
        return self._footer(path, lambda footer: pl.Schema(pl.read_parquet_schema(footer)))

    def _footer(self, path: str, read: Callable[[bytes], T]) -> T:
        try:
            end = obstore.head(self._store, path)["size"]
            last = bytes(
                obstore.get_range(self._store, path, start=max(end - 8, 0), length=min(end, 8))
            )
            length = int.from_bytes(last[:4], "little") + 8
            if last[4:] != b"PAR1" or length > end:
                raise ValueError("its end is missing")
            return read(
                bytes(obstore.get_range(self._store, path, start=end - length, length=length))
            )
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.url(path)} is not there: run the task that writes it first"
            ) from error
        except (BaseError, OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise StorageError(
                f"{self.url(path)} is no Parquet ({error_reason(error)}): run the task that writes it again"
            ) from error

    def read_parquet(self, path: str) -> pl.DataFrame:
        """The whole object as a frame; memory grows with its rows."""
        data = self.get(path)
        try:
            return pl.read_parquet(data)
        except pl.exceptions.PolarsError as error:
            raise StorageError(
                f"{self.url(path)} is no Parquet ({error_reason(error)}): run the task that writes it again"
            ) from error


def _facts(data: bytes) -> dict[str, str]:
    """What was written as metadata, without what Polars adds."""
    return {
        name: fact
        for name, fact in pl.read_parquet_metadata(data).items()
        if name != "ARROW:schema"
    }


def error_reason(error: Exception) -> str:
    """What a store or its client says, on one line, without the client's internals and without a signature."""
    said = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).partition("Debug source:")[0].split())
    return re.sub(r"\bsig=[^&\s\"')]+", "sig=…", said)


def retry(action: Callable[[], T], *races: type[Exception]) -> T:
    """Do what may be done twice again, a little later each time, when an answer broke off in its middle or a race was lost.

    Everything else that a retry can mend is retried by the clients themselves.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return action()
        except Exception as error:
            broken_off = "error reading a body" in str(error) or "response body error" in str(error)
            if not broken_off and not isinstance(error, races):
                raise
            log.info("attempt %d of %d: %s", attempt, _ATTEMPTS, error_reason(error))
            time.sleep(0.1 * attempt)
    return action()
