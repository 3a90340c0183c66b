"""What all benchmarks share: the machine, costs, tables and their result files."""

import importlib
import json
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Cell = str | int | float | None


@dataclass(frozen=True)
class Cost:
    """Wall seconds and CPU seconds of a call, and the peak memory of its process in MiB."""

    seconds: float
    cpu_seconds: float
    peak_mib: float

    def __add__(self, other: "Cost") -> "Cost":
        """Seconds are summed; of memory the larger counts."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_mib, other.peak_mib),
        )


def timed(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[Any, Cost]:
    """Call a function in this process; return its result and its cost."""
    began, cpu = time.perf_counter(), time.process_time()
    result = call(*arguments, **named)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return result, Cost(seconds, cpu, peak_mib())


def apart(call: Callable[..., Any], *arguments: Any) -> tuple[Any, Cost]:
    """The same in a new process that imports the function's module. Imports are not timed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed_by_name, (call.__module__, call.__name__, arguments))


def fastest(call: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of several calls."""
    return min(timed(call)[1].seconds for _ in range(times))


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine() -> dict[str, Cell]:
    """CPU, cores that this process may use, memory in GiB, GPU (None without one), Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "gpu": _gpu(),
        "python": platform.python_version(),
    }


def machine_folder(described: dict[str, Cell]) -> str:
    """The name of a machine's folder of results, such as ``amd-epyc-2-cores``."""
    name = f"{described['cpu']} {described['cores']} cores {described['gpu'] or ''}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Table:
    """A table that is printed row by row. `formats` are format specifications, one a column."""

    def __init__(self, columns: dict[str, str], note: str = "") -> None:
        self.columns, self.formats = list(columns), list(columns.values())
        self.note, self.rows = note, []
        print(f"\n{note}\n" if note else "")
        print("\n".join(render(self.columns, self.formats, [])), flush=True)

    def add(self, *cells: Cell) -> None:
        """Add a row of numbers or texts; None leaves a cell empty."""
        self.rows.append(list(cells))
        print(render(self.columns, self.formats, [list(cells)])[-1], flush=True)


class Report:
    """The tables of one benchmark on this machine.

    benchmark : its name, which is also the name of the result file
    command : how to run it again

    """

    def __init__(self, benchmark: str, command: str) -> None:
        self.benchmark, self.command = benchmark, command
        self.machine = machine()
        self.tables: dict[str, Table] = {}
        print(", ".join(f"{name} {value}" for name, value in self.machine.items() if value))

    def table(self, name: str, columns: dict[str, str], note: str = "") -> Table:
        """Begin a table. `columns` maps each heading to its format, such as ``.2f`` or ``,``."""
        self.tables[name] = Table(columns, note)
        return self.tables[name]

    def write(self, folder: Path) -> Path:
        """Write the tables to ``<machine>/<benchmark>.json``; tables of other parts stay."""
        path = folder / machine_folder(self.machine) / f"{self.benchmark}.json"
        stored = json.loads(path.read_text())["tables"] if path.exists() else {}
        measured = f"{datetime.now(UTC):%Y-%m-%d}"
        for name, table in self.tables.items():
            stored[name] = {
                "measured": measured,
                "command": self.command,
                "note": table.note,
                "columns": table.columns,
                "formats": table.formats,
                "rows": table.rows,
            }
        write_results(path, self.benchmark, self.machine, stored)
        return path


def write_results(
    path: Path, benchmark: str, described: dict[str, Cell], tables: dict[str, Any]
) -> None:
    """Write a result file with one line for each row of a table."""
    content = {"benchmark": benchmark, "machine": described, "tables": tables}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # json.dumps gives each cell a line of its own
    rows = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")
    text = rows.sub(lambda row: "[" + re.sub(r"\n\s+", " ", row[1]) + "]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def render(columns: list[str], formats: list[str], rows: list[list[Cell]]) -> list[str]:
    """The lines of a Markdown table. A column with a format is aligned to the right."""
    lines = [columns, ["---" if form == "" else "--:" for form in formats]]
    lines += [
        [
            "" if cell is None else cell if isinstance(cell, str) else f"{cell:{form}}"
            for cell, form in zip(row, formats, strict=True)
        ]
        for row in rows
    ]
    return ["|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines]


def _timed_by_name(module: str, function: str, arguments: tuple[Any, ...]) -> tuple[Any, Cost]:
    return timed(getattr(importlib.import_module(module), function), *arguments)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or sys.platform


def _gpu() -> str | None:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(query, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return names.splitlines()[0].strip() if names.strip() else None
