"""Machine code by numba, kept on disk where there is a folder to write to."""

from collections.abc import Callable
from typing import Any

import numba


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: `numba.njit` with these options, without the interpreter's lock; compiled once an installation."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(function, nogil=True, cache=True, **options)
        except RuntimeError:  # no folder can be written to: once a process
            return numba.njit(function, nogil=True, **options)

    return decorate
