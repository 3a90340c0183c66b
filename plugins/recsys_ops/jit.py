"""Machine code by numba, kept on disk where there is a folder to write to."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache


class _SharedCache(FunctionCache):
    """Numba's cache on disk, for several processes at a time.

    Numba numbers the files of a function's variants and keeps the numbers in an index. Two
    processes that save variants at the same moment give both the same number; from then on the
    machine code of one variant runs in place of the other. For the ALS solver, which is compiled
    for each number of factors, that means wrong factors or a crash.
    """

    def save_overload(self, signature: Any, compiled: Any) -> None:
        with self._locked(fcntl.LOCK_EX):
            super().save_overload(signature, compiled)  # type: ignore[no-untyped-call]

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        with self._locked(fcntl.LOCK_SH):
            return super().load_overload(signature, target_context)  # type: ignore[no-untyped-call]

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        with (Path(self.cache_path) / "numba.lock").open("a") as lock:
            fcntl.flock(lock, mode)  # until the file is closed
            yield


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: `numba.njit` with these options that does not hold the interpreter's lock.

    A function is compiled once for each installation.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(function, nogil=True, **options)
        with suppress(RuntimeError):  # no folder is writable: each process compiles for itself
            compiled._cache = _SharedCache(compiled.py_func)  # type: ignore[no-untyped-call]
        return compiled

    return decorate
