"""The least time that a sweep on a GPU can take, computed.

For each shape and number of factors, from the cells of users and items and from the bandwidth and
rate of the GPU (measured if there is one, else from the H200's data sheet): the least time that a
sweep can take at all, and the time of all that `recsys_ops.als.gpu` reads, writes and computes,
array by array, if every call ran at the GPU's limit.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.harness import Report
from recsys_ops.als import device, normal_equations

Degrees = NDArray[np.int64]  # cells of each row, one entry a row

SHAPES = {
    "S": (100_000, 2_465, 800_000),
    "M": (500_000, 30_000, 10_000_000),
    "L": (200_000, 84_000, 32_000_000),
}
FACTORS = (64, 128, 256, 800)


@dataclass(frozen=True)
class Rates:
    """A GPU: bytes and float32 operations a second."""

    name: str
    bandwidth: float
    operations: float


@dataclass(frozen=True)
class Work:
    """Bytes moved to and from the GPU's memory, and float32 operations."""

    bytes: float
    operations: float

    def seconds(self, rates: Rates) -> float:
        return max(self.bytes / rates.bandwidth, self.operations / rates.operations)


H200 = Rates("NVIDIA H200, data sheet", 4.8e12, 67e12)


def least(
    degree: Degrees,
    others: int,
    factors: int,
    largest_system: int = normal_equations.LARGEST_SYSTEM,
) -> Work:
    """A half-sweep for rows of these degrees that reads each cell and factor once.

    Each factor is also written once.

    """
    filled = degree[degree > 0].astype(float)
    system = np.minimum(filled, factors)
    exact = filled * factors * system + system**3 / 3  # a symmetric product is half of one
    steps = 4.0 * (normal_equations.STEPS + 1) * filled * factors
    operations = np.where(system <= largest_system, exact, steps).sum() + others * factors**2
    return Work(8 * filled.sum() + 4.0 * factors * (len(degree) + others), operations)


def phases(
    degree: Degrees,
    others: int,
    factors: int,
    largest_system: int = normal_equations.LARGEST_SYSTEM,
) -> dict[str, Work]:
    """A half-sweep as `recsys_ops.als.gpu` does it, call by call.

    All rows of a batch are assumed to have the same degree.
    """
    filled = degree[degree > 0].astype(float)
    system = np.minimum(filled, factors)
    exact = system <= largest_system
    h, n2 = filled * factors, system**2
    return {
        # gathered, then scaled twice in place; 64 bytes for the indices of a cell
        "gather": Work(4 * 6 * h.sum() + 64 * filled.sum(), 2 * h.sum()),
        # CuPy copies the transposed operand first
        "product": Work((4 * (2 * h + 2 * h + n2))[exact].sum(), (2 * h * system)[exact].sum()),
        # copied, factorised, cleared above the diagonal, and solved twice
        "solve": Work(
            (4 * 8 * n2)[exact].sum() + 4 * h[exact].sum(),
            (system**3 / 3 + 4 * n2 + 2 * h)[exact].sum(),
        ),
        "steps": Work(
            (4 * 2 * (normal_equations.STEPS + 1) * h)[~exact].sum(),
            (4 * (normal_equations.STEPS + 1) * h)[~exact].sum(),
        ),
        "bases": Work(
            4.0 * factors * (6 * others + 4 * len(filled)),
            2.0 * factors**2 * (2 * others + len(filled)),
        ),
    }


def iteration(users: Degrees, items: Degrees, factors: int, rates: Rates) -> dict[str, float]:
    """Seconds of an iteration: the ``least``, each of the `phases`, and their sum ``arranged``."""
    sides = ((users, len(items)), (items, len(users)))
    parts = [phases(degree, others, factors) for degree, others in sides]
    seconds = {name: sum(part[name].seconds(rates) for part in parts) for name in parts[0]}
    floor = sum(least(degree, others, factors).seconds(rates) for degree, others in sides)
    return {"least": floor, **seconds, "arranged": sum(seconds.values())}


def degrees(users: int, items: int, cells: int) -> tuple[Degrees, Degrees]:
    """About `cells` cells: users log-normal (σ 1.1), items by Zipf's law (1 / (rank + 1 %))."""
    activity = np.exp(1.1 * norm.ppf((np.arange(users) + 0.5) / users))
    popularity = 1 / (np.arange(items) + 1 + 0.01 * items)
    sides = [
        np.clip(np.rint(weight / weight.sum() * cells), 1, most)
        for weight, most in ((activity, items), (popularity, users))
    ]
    return sides[0].astype(np.int64), sides[1].astype(np.int64)


def measured() -> Rates | None:
    """The rates of this machine's GPU, or None without one.

    Measured by copying a GiB and by multiplying two matrices of 64 million numbers.
    """
    gpu = device.find_gpu()
    if gpu.name is None:
        return None
    import cupy
    from cupyx.profiler import benchmark

    numbers = cupy.ones(1 << 28, dtype=cupy.float32)
    square = cupy.ones((8192, 8192), dtype=cupy.float32)
    copy, product = (
        float(benchmark(call, (), n_repeat=10, n_warmup=3).gpu_times.min())
        for call in (numbers.copy, lambda: square @ square)
    )
    return Rates(f"{gpu.name}, measured", 2 * numbers.nbytes / copy, 2 * 8192.0**3 / product)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace, report: Report) -> None:
    rates = measured() or H200
    names = ["least", "gather", "product", "solve", "steps", "bases", "arranged"]
    table = report.table(
        "floor",
        {"shape": "", "factors": "", **dict.fromkeys(names, ".2f")},
        f"ms of a sweep, computed for {rates.name}: {rates.bandwidth / 1e12:.1f} TB/s, "
        f"{rates.operations / 1e12:.0f} TFLOP/s",
    )
    for shape, size in SHAPES.items():
        users, items = degrees(*size)
        for factors in FACTORS:
            seconds = iteration(users, items, factors, rates)
            table.add(shape, factors, *(1000 * seconds[name] for name in names))
    table = report.table(
        "floor-row",
        {"factors": "", "exactly": ".1f", "three steps": ".1f"},
        "µs of a row of 1,000 cells",
    )
    for factors in FACTORS:
        works = (phases(np.array([1000]), 0, factors, largest) for largest in (factors, 0))
        microseconds = [
            1e6 * sum(work.seconds(rates) for work in phases_of_row.values())
            for phases_of_row in works
        ]
        table.add(factors, *microseconds)
