"""Access to blob storage: whole objects in `file://`, `abfs://` and `gs://`, written atomically."""

import fcntl
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore, from_url

from recsys_ops.errors import DamagedError, StorageError

log = logging.getLogger(__name__)

T = TypeVar("T")
_ATTEMPTS = 20
_SMALLEST_PARQUET = 12  # bytes: twice PAR1, and the length of the footer
# object_store retries throttling, cut connections and server errors itself: 10 times within
# 3 minutes, with a pause that doubles from 0.1 s. Its default of 30 s for one request is too short
# for a large block on a slow line.
_REQUEST_TIMEOUT = "300s"


class Storage:
    """The objects below a root URL.

    options : object_store's keys of the account (``account_name``, ``account_key``, …). Keys that
        are missing come from the environment (``AZURE_STORAGE_ACCOUNT_NAME``, …). Plain HTTP is
        used only if ``endpoint`` says so.
    """

    def __init__(self, root: str, options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self.account = {} if self.root.startswith("file:") else dict(options or {})

    @property
    def options(self) -> dict[str, str]:
        """The account and the client's settings, for Delta and Polars."""
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
            return from_url(  # type: ignore[call-overload, no-any-return]
                self.root, client_options=client, **self.account
            )
        except (BaseError, ValueError, OSError) as error:
            raise StorageError(
                f"cannot open storage {self.root}: {error_reason(error)}; "
                "check storage.root and its connection"
            ) from error

    @property
    def _folder(self) -> Path:
        """The folder of a ``file://`` root."""
        return Path(url2pathname(urlsplit(self.root).path))

    def put(self, path: str, data: bytes | Path) -> None:
        """Write an object from bytes or a local file; a reader sees all old or all new bytes."""
        try:
            obstore.put(self._store, path, data)
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot write {self.url(path)}: {error_reason(error)}") from error

    def get(self, path: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError as error:
            raise self._missing(path) from error
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read {self.url(path)}: {error_reason(error)}") from error

    def delete(self, path: str) -> None:
        """Delete an object; a missing object is no error."""
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
        return sorted(self.write_times(prefix))

    def write_times(self, prefix: str) -> dict[str, datetime]:
        """The paths below a prefix, and when each object was written, by the storage's clock."""
        try:
            entries = retry(lambda: obstore.list(self._store, prefix).collect())
            return {str(entry["path"]): entry["last_modified"] for entry in entries}
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot list {self.url(prefix)}: {error_reason(error)}") from error

    def delete_half_written(self, before: datetime) -> int:
        """Delete the half-written files that killed writers left before a time; returns how many.

        Only a local folder has such files, and no other method sees them. Azure drops an
        unfinished upload itself after a week.
        """
        deleted = 0
        if self.root.startswith("file:"):
            try:
                for path in self._folder.rglob("*#*"):
                    with suppress(FileNotFoundError):  # its writer has just renamed it
                        if (
                            re.search(r"#[1-9]\d*$", path.name)
                            and path.stat().st_mtime < before.timestamp()
                        ):
                            path.unlink()
                            deleted += 1
            except OSError as error:
                raise StorageError(
                    f"cannot delete the half-written files in {self.root}: {error_reason(error)}"
                ) from error
        return deleted

    def write_json(self, path: str, value: Any) -> None:
        self.put(path, _to_json(value))

    def read_json(self, path: str) -> Any:
        try:
            return json.loads(self.get(path))
        except ValueError as error:
            raise self._no_json(path, error) from error

    def read_record(self, path: str, *names: str) -> dict[str, Any]:
        """A JSON object that has at least these names.

        Raises StorageError; where the content is something else, DamagedError.
        """
        record = self.read_json(path)
        if not isinstance(record, dict) or not {*names} <= record.keys():
            raise DamagedError(
                f"{self.url(path)} is damaged, it is not an object with {', '.join(names)}: "
                "run the task that writes it again"
            )
        return record

    def update_json(self, path: str, change: Callable[[Any], Any]) -> None:
        """Replace a JSON object by what `change` makes of it; of two writers neither is lost.

        change : gets the content, None where there is no object, and returns the new content. The
            object is not written where they are equal. It is called again when another writer was
            faster, and when the storage's answer was lost: called with its own result, it must
            return it unchanged.
        """
        with self._locked(path) if self.root.startswith("file:") else nullcontext():
            try:
                retry(
                    lambda: self._update_json(path, change), AlreadyExistsError, PreconditionError
                )
            except (BaseError, OSError) as error:
                raise StorageError(
                    f"cannot write {self.url(path)}: {error_reason(error)}"
                ) from error

    def _update_json(self, path: str, change: Callable[[Any], Any]) -> None:
        try:
            found = obstore.get(self._store, path)
            content, meta = json.loads(bytes(found.bytes())), found.meta
        except FileNotFoundError:
            content, meta = None, None
        except ValueError as error:
            raise self._no_json(path, error) from error
        before = meta and _to_json(content)
        data = _to_json(change(content))
        if data == before:
            return
        if self.root.startswith("file:"):
            # object_store does not compare the tag of a local file; the lock keeps others out
            obstore.put(self._store, path, data)
        elif meta is None:
            obstore.put(self._store, path, data, mode="create")
        else:
            tags = {name: meta[name] for name in ("e_tag", "version") if meta[name]}
            obstore.put(self._store, path, data, mode=tags)  # type: ignore[arg-type]

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        """Hold the lock file of a local object, which the system releases with its process.

        Its name ends like that of a half-written file, so that no listing shows it.
        """
        lock = self._folder / f"{path}#0"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("a")
        except OSError as error:
            raise StorageError(f"cannot write {self.url(path)}: {error_reason(error)}") from error
        with file:
            try:
                retry(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB), BlockingIOError)
            except OSError as error:
                raise StorageError(
                    f"cannot write {self.url(path)}: cannot lock {lock} ({error_reason(error)}); "
                    "look for a process that hangs"
                ) from error
            yield

    def write_parquet(
        self, path: str, frame: pl.DataFrame, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a frame, with `metadata` inside the Parquet file."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", metadata=dict(metadata or {}))
        self.put(path, buffer.getvalue())

    def scan_parquet(self, path: str) -> tuple[pl.LazyFrame, dict[str, str]]:
        """The object as a lazy frame over its compressed bytes, and its metadata."""
        return self.open_parquet(path, self.get(path))

    def open_parquet(self, path: str, data: bytes) -> tuple[pl.LazyFrame, dict[str, str]]:
        """As `scan_parquet`, for an object whose bytes the caller has."""
        try:
            # Polars cannot compare row groups' statistics with a filter that is a Python function
            return pl.scan_parquet(data, use_statistics=False), _metadata(data)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise self._unreadable(path, error) from error

    def metadata(self, path: str) -> dict[str, str]:
        """The metadata of a Parquet object; only its footer is fetched."""
        return self._footer(path, _metadata)

    def schema(self, path: str) -> pl.Schema:
        """The columns of a Parquet object; only its footer is fetched."""
        return self._footer(path, lambda footer: pl.Schema(pl.read_parquet_schema(footer)))

    def _footer(self, path: str, read: Callable[[bytes], T]) -> T:
        try:
            end = obstore.head(self._store, path)["size"]
            if end < _SMALLEST_PARQUET:
                raise ValueError("its end is missing")
            tail = bytes(obstore.get_range(self._store, path, start=end - 8, length=8))
            length = int.from_bytes(tail[:4], "little") + 8
            if tail[4:] != b"PAR1" or length > end:
                raise ValueError("its end is missing")
            return read(
                bytes(obstore.get_range(self._store, path, start=end - length, length=length))
            )
        except FileNotFoundError as error:
            raise self._missing(path) from error
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read {self.url(path)}: {error_reason(error)}") from error
        except (ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise self._unreadable(path, error) from error

    def read_parquet(self, path: str) -> pl.DataFrame:
        """The whole object as a frame; memory grows with its rows."""
        data = self.get(path)
        try:
            return pl.read_parquet(data)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise self._unreadable(path, error) from error

    def _missing(self, path: str) -> StorageError:
        return StorageError(f"{self.url(path)} is not there: run the task that writes it first")

    def _no_json(self, path: str, error: Exception) -> DamagedError:
        return DamagedError(
            f"{self.url(path)} is no JSON ({error}): run the task that writes it again"
        )

    def _unreadable(self, path: str, error: BaseException) -> DamagedError:
        return DamagedError(
            f"{self.url(path)} is no Parquet ({error_reason(error)}): "
            "run the task that writes it again"
        )


def _to_json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, default=str, allow_nan=False).encode()


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata without what Polars adds."""
    return {
        name: value
        for name, value in pl.read_parquet_metadata(data).items()
        if name != "ARROW:schema"
    }


def error_reason(error: BaseException) -> str:
    """A storage error on one line, without the client's internals and without a signature."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Debug source:")[0]
    return re.sub(r"\bsig=[^&\s\"')]+", "sig=…", " ".join(text.split()))


def retry(action: Callable[[], T], *conflicts: type[Exception]) -> T:
    """Retry an idempotent action when a response broke off or a write conflict occurred.

    conflicts : the errors that mean a write conflict.
    The storage clients retry everything else themselves.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return action()
        except Exception as error:
            broken_off = "error reading a body" in str(error) or "response body error" in str(error)
            if not broken_off and not isinstance(error, conflicts):
                raise
            log.info("attempt %d of %d: %s", attempt, _ATTEMPTS, error_reason(error))
            time.sleep(0.1 * attempt)
    return action()
