"""The GPU: whether CuPy computes on it, its memory, and the errors when there is too little."""

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

_peak = 0  # bytes, the most that `gpu_peak_memory` has seen


@dataclass(frozen=True)
class Gpu:
    """The GPU that CuPy computes on.

    name : None where there is none
    reason : why there is none
    versions : of driver, cuda, cupy
    """

    name: str | None
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def find_gpu() -> Gpu:
    """The GPU of this machine, if it solves small equations as the CPU does. Never raises."""
    try:
        import cupy

        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        if not np.allclose(cupy.asnumpy(_trial(cupy)), _trial(np), atol=1e-3):
            return Gpu(
                None, f"{name} gives other solutions than the CPU: update its driver or CuPy"
            )
        cuda = cupy.cuda.runtime.runtimeGetVersion()
        versions = {
            "driver": _driver(),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "cupy": str(cupy.__version__),
        }
    except ModuleNotFoundError as error:
        return Gpu(None, f"{error}: install recsys-ops[worker], or cupy-cuda13x for CUDA 13")
    except Exception as error:  # a missing driver, GPU or CUDA library: each raises another type
        return Gpu(None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Gpu(name, versions=versions)


def cupy() -> Any:
    """The module CuPy. Raises ModelError with the reason when there is no GPU to compute on."""
    gpu = find_gpu()
    if gpu.name is None:
        raise ModelError(
            f"no GPU to compute on: {gpu.reason} (with training.solver: auto the CPU computes)"
        )
    import cupy

    return cupy


def to_host(xp: Any, array: Any) -> NDArray[Any]:
    """The array as a NumPy array."""
    on_host: NDArray[Any] = array if xp is np else xp.asnumpy(array)
    return on_host


def free_memory(xp: Any) -> int:
    """Bytes of GPU memory that can be allocated; for NumPy half of the machine's memory."""
    if xp is np:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return int(xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes())


def free_memory_for(xp: Any, needed: int, allowed: int) -> None:
    """Free CuPy's cached blocks if cache plus `needed` would exceed `allowed`, all in bytes.

    CuPy keeps freed blocks for arrays of their size or smaller. With batches of many sizes it would
    keep more and more.
    """
    if xp is np:
        return
    pool = xp.get_default_memory_pool()
    if pool.free_bytes() + needed > allowed:
        gpu_peak_memory(xp)
        pool.free_all_blocks()


def gpu_peak_memory(xp: Any) -> int:
    """The most bytes of GPU memory that CuPy has held for this process.

    CuPy gives memory back only in `free_memory_for`, so it is enough to look there and here.
    """
    global _peak
    _peak = max(_peak, int(xp.get_default_memory_pool().total_bytes()))
    return _peak


def memory_error(xp: Any, needed: str, remedy: str) -> ModelError:
    """The error for too little GPU memory."""
    return ModelError(
        f"not enough GPU memory: {needed}; {free_memory(xp):,} bytes are free: {remedy}"
    )


def _driver() -> str:
    """The version of NVIDIA's driver; empty where Linux does not have it."""
    try:
        match = re.search(
            r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", Path("/proc/driver/nvidia/version").read_text()
        )
    except OSError:
        return ""
    return match[1] if match else ""


def _trial(xp: Any) -> Any:
    """The solutions of two rows, of one and of three cells, by both methods.

    This calls every CUDA library that training calls.
    """
    other = xp.asarray(np.array([[1, 0], [2, 1], [0, 3]], np.float32))
    values, basis = xp.linalg.eigh(normal_equations.gram_float64(xp, other))
    rotated, basis = other @ basis.astype(xp.float32), basis.astype(xp.float32)
    scale = 1 / xp.sqrt(values.astype(xp.float32) + xp.ones((2, 1), xp.float32))
    cells = (
        xp.asarray(np.array([1, 0, 1, 2], np.int32)),
        xp.asarray(np.array([5, 2, 3, 4], np.float32)),
    )
    row = xp.asarray(np.array([0, 1])), xp.asarray(np.array([1, 3]))

    def solutions(width: int) -> list[Any]:
        parts = [normal_equations.gather(xp, cells, row, range(width), rotated, scale)]
        start = xp.zeros((2, 2), dtype=xp.float32)
        return [
            normal_equations.solve_exactly(xp, lambda: parts, width, 2),
            normal_equations.solve_in_steps(xp, lambda: parts, start),
        ]

    return (xp.stack(solutions(1) + solutions(3)) * scale).reshape(-1, 2) @ basis.T
