"""The graphics card: whether CuPy computes on it, its memory, and what to say when that does not suffice."""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_ops.als import normal_equations
from recsys_ops.errors import ModelError

_peak = 0  # bytes, as last seen by `peak_memory`


@dataclass(frozen=True)
class Gpu:
    """The card that CuPy computes on: its name, or None and the reason why there is none.

    versions : driver, cuda, cupy
    """

    name: str | None
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def find_gpu() -> Gpu:
    """Whether CuPy computes on a card here: small equations must come out there as on the CPU. Never raises."""
    try:
        import cupy

        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        if not np.allclose(cupy.asnumpy(_trial(cupy)), _trial(np), atol=1e-3):
            return Gpu(
                None, f"{name} solves equations otherwise than the CPU: update its driver, or CuPy"
            )
        cuda = cupy.cuda.runtime.runtimeGetVersion()
        versions = {
            "driver": _driver(),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "cupy": str(cupy.__version__),
        }
    except ModuleNotFoundError as error:
        return Gpu(None, f"{error}: install recsys-ops[worker], or cupy-cuda13x for CUDA 13")
    except Exception as error:  # a missing driver, card or CUDA library: each raises something else
        return Gpu(None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Gpu(name, versions=versions)


def cupy() -> Any:
    """The module. Raises ModelError with the reason when it cannot compute."""
    found = find_gpu()
    if found.name is None:
        raise ModelError(
            f"no graphics card to compute on: {found.reason} (training.solver: auto takes the CPU then)"
        )
    import cupy

    return cupy


def to_host(xp: Any, array: Any) -> NDArray[Any]:
    """The same numbers as a NumPy array."""
    numbers: NDArray[Any] = array if xp is np else xp.asnumpy(array)
    return numbers


def free_memory(xp: Any) -> int:
    """Bytes of the card's memory that can be had; half of the machine's for NumPy."""
    if xp is np:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return int(xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes())


def free_memory_for(xp: Any, needed: int, allowed: int) -> None:
    """Where what CuPy keeps of freed memory and `needed` bytes are more than `allowed`, give the former back to the card.

    It keeps blocks for arrays of their size or smaller, and batches of many sizes would make it keep ever more.
    """
    if xp is np:
        return
    pool = xp.get_default_memory_pool()
    if pool.free_bytes() + needed > allowed:
        gpu_peak_memory(xp)
        pool.free_all_blocks()


def gpu_peak_memory(xp: Any) -> int:
    """The most bytes of the card's memory that CuPy has held for this process: it gives back none but in `make_room`."""
    global _peak
    _peak = max(_peak, int(xp.get_default_memory_pool().total_bytes()))
    return _peak


def memory_error(xp: Any, wanted: str, do: str) -> ModelError:
    return ModelError(
        f"the graphics card's memory does not suffice: {wanted}; {free_memory(xp):,} bytes are free: {do}"
    )


def _driver() -> str:
    """The version of NVIDIA's driver; empty where Linux does not tell."""
    try:
        found = re.search(
            r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", Path("/proc/driver/nvidia/version").read_text()
        )
    except OSError:
        return ""
    return found[1] if found else ""


def _trial(xp: Any) -> Any:
    """Two rows, of one and of three cells, solved each way: what this calls is every CUDA library that training calls."""
    other = xp.asarray(np.array([[1, 0], [2, 1], [0, 3]], np.float32))
    values, basis = xp.linalg.eigh(normal_equations.gram(xp, other))
    rotated, basis = other @ basis.astype(xp.float32), basis.astype(xp.float32)
    scale = 1 / xp.sqrt(values.astype(xp.float32) + xp.ones((2, 1), xp.float32))
    cells = (
        xp.asarray(np.array([1, 0, 1, 2], np.int32)),
        xp.asarray(np.array([5, 2, 3, 4], np.float32)),
    )
    row = xp.asarray(np.array([0, 1])), xp.asarray(np.array([1, 3]))

    def solved(width: int) -> list[Any]:
        held = [normal_equations.gather(xp, cells, row, range(width), rotated, scale)]
        start = xp.zeros((2, 2), dtype=xp.float32)
        return [
            normal_equations.exact(xp, lambda: held, width, 2),
            normal_equations.three_steps(xp, lambda: held, start),
        ]

    return (xp.stack(solved(1) + solved(3)) * scale).reshape(-1, 2) @ basis.T
