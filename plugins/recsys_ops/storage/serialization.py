"""Arrays, matrices and frames to bytes and back.

The same value gives the same bytes, and nothing is pickled.
"""

import hashlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def from_frame(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    return buffer.getvalue()


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def from_matrix(matrix: "sparse.csr_matrix") -> bytes:
    from scipy import sparse

    buffer = io.BytesIO()
    sparse.save_npz(buffer, matrix, compressed=False)
    return buffer.getvalue()


def to_frame(data: bytes, columns: list[str] | None = None) -> pl.DataFrame:
    return pl.read_parquet(data, columns=columns)


def to_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def to_matrix(data: bytes) -> "sparse.csr_matrix":
    from scipy import sparse

    return sparse.csr_matrix(sparse.load_npz(io.BytesIO(data)))
