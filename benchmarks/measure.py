"""What the benchmarks share: the machine's name, and the cost of a call in a process of its own."""

import importlib
import multiprocessing
import os
import platform
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of a call, imports left out, and the peak memory of its process in MiB."""

    seconds: float
    cpu: float
    peak: float


def apart(module: str, function: str, *arguments: Any) -> tuple[Any, Cost]:
    """Call a function in a new process, which imports nothing but its module; return its result and its cost."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (module, function, arguments))


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def _timed(module: str, function: str, arguments: tuple[Any, ...]) -> tuple[Any, Cost]:
    call = getattr(importlib.import_module(module), function)
    began, cpu = time.perf_counter(), time.process_time()
    result = call(*arguments)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result, Cost(seconds, cpu, peak / (2**20 if sys.platform == "darwin" else 2**10))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.processor() or "?",
    )
