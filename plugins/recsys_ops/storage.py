"""Objects in blob storage: one small door to `file://` and `abfs://`, whole objects, put in place atomically."""

import io
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import obstore
import polars as pl
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from recsys_ops.errors import StorageError


class Storage:
    """The objects below a root URL. `options` are object_store's keys (``account_name``, ``account_key``, …)."""

    def __init__(self, root: str, options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self.options = dict(options or {})

    def url(self, path: str) -> str:
        return f"{self.root}/{path}"

    @cached_property
    def _store(self) -> ObjectStore:
        try:
            if self.root.startswith("file:"):
                return from_url(self.root, mkdir=True)
            return from_url(self.root, **self.options)  # type: ignore[call-overload, no-any-return]
        except (BaseError, ValueError, OSError) as error:
            raise StorageError(f"cannot open storage {self.root}: {error}; check storage.root and its connection") from error

    def put(self, path: str, data: bytes) -> None:
        """Write a whole object; a reader sees the old bytes or the new ones, never a part."""
        try:
            obstore.put(self._store, path, data)
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot write {self.url(path)}: {error}") from error

    def get(self, path: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError as error:
            raise StorageError(f"{self.url(path)} is not there: run the task that writes it first") from error
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read {self.url(path)}: {error}") from error

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot delete {self.url(path)}: {error}") from error

    def exists(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read {self.url(path)}: {error}") from error
        return True

    def list(self, prefix: str) -> list[str]:
        """The paths below a prefix, sorted."""
        try:
            return sorted(str(found["path"]) for found in obstore.list(self._store, prefix).collect())
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot list {self.url(prefix)}: {error}") from error

    def write_json(self, path: str, value: Any) -> None:
        self.put(path, json.dumps(value, indent=2, sort_keys=True, default=str, allow_nan=False).encode())

    def read_json(self, path: str) -> Any:
        try:
            return json.loads(self.get(path))
        except ValueError as error:
            raise StorageError(f"{self.url(path)} is no JSON ({error}): run the task that writes it again") from error

    def write_parquet(self, path: str, frame: pl.DataFrame, metadata: Mapping[str, str] | None = None) -> None:
        """Write a frame, with facts that must never part from it in the file's own metadata."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", metadata=dict(metadata or {}))
        self.put(path, buffer.getvalue())

    def read_parquet(self, path: str) -> pl.DataFrame:
        """The whole object as a frame; memory grows with its rows."""
        return self.read_parquet_with_metadata(path)[0]

    def read_parquet_with_metadata(self, path: str) -> tuple[pl.DataFrame, dict[str, str]]:
        data = self.get(path)
        try:
            return pl.read_parquet(data), pl.read_parquet_metadata(data)
        except pl.exceptions.PolarsError as error:
            raise StorageError(f"{self.url(path)} is no Parquet ({error}): run the task that writes it again") from error
