"""``python benchmarks/gpu_floor.py``: what an iteration on a graphics card cannot take less than.

Prints for each shape and number of factors, computed from the degrees of users and items and from the card's bandwidth and
rate (measured where there is a card, else the H200's data sheet): the least time an iteration can take at all, and the time
of what `recsys_ops.als.gpu` reads, writes and computes, array by array, if every call ran at the card's limit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

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
    """A card: bytes and float32 operations a second."""

    name: str
    bandwidth: float
    operations: float


@dataclass(frozen=True)
class Work:
    """Bytes moved to and from the card's memory, and float32 operations."""

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
    """A half-sweep for rows of these degrees that reads each cell and factor, and writes each factor, once."""
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
    """A half-sweep as `recsys_ops.als.gpu` does it, call by call; rows of a batch taken to be of one degree."""
    filled = degree[degree > 0].astype(float)
    system = np.minimum(filled, factors)
    exact = system <= largest_system
    h, n2 = filled * factors, system**2
    return {
        # taken, and twice scaled in place; 64 bytes for the numbers of a cell
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
    """Log-normal users (σ 1.1) and items by Zipf's law (1 / (rank + 1 % of all)), about `cells` cells."""
    activity = np.exp(1.1 * norm.ppf((np.arange(users) + 0.5) / users))
    popularity = 1 / (np.arange(items) + 1 + 0.01 * items)
    sides = [
        np.clip(np.rint(weight / weight.sum() * cells), 1, most)
        for weight, most in ((activity, items), (popularity, users))
    ]
    return sides[0].astype(np.int64), sides[1].astype(np.int64)


def measured() -> Rates | None:
    """The rates of the card here: a GiB copied, and a product of two matrices of 64 million numbers; None without a card."""
    found = device.find_gpu()
    if found.name is None:
        return None
    import cupy
    from cupyx.profiler import benchmark

    numbers = cupy.ones(1 << 28, dtype=cupy.float32)
    square = cupy.ones((8192, 8192), dtype=cupy.float32)
    copy, product = (
        float(benchmark(call, (), n_repeat=10, n_warmup=3).gpu_times.min())
        for call in (numbers.copy, lambda: square @ square)
    )
    return Rates(f"{found.name}, measured", 2 * numbers.nbytes / copy, 2 * 8192.0**3 / product)


def main() -> None:
    rates = measured() or H200
    print(
        f"computed, not measured, for {rates.name}: {rates.bandwidth / 1e12:.1f} TB/s, {rates.operations / 1e12:.0f} TFLOP/s"
    )
    names = ["least", "gather", "product", "solve", "steps", "bases", "arranged"]
    print(
        f"\nan iteration, ms\n\n| shape | factors | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}"
    )
    for shape, size in SHAPES.items():
        users, items = degrees(*size)
        for factors in FACTORS:
            seconds = iteration(users, items, factors, rates)
            print(
                f"| {shape} | {factors} | {' | '.join(f'{1000 * seconds[name]:.2f}' for name in names)} |"
            )
    print("\na row of 1,000 cells, µs\n\n| factors | exactly | three steps |\n|---|---|---|")
    for factors in FACTORS:
        row = [
            sum(
                work.seconds(rates)
                for work in phases(np.array([1000]), 0, factors, largest).values()
            )
            * 1e6
            for largest in (factors, 0)
        ]
        print(f"| {factors} | {row[0]:.1f} | {row[1]:.1f} |")


if __name__ == "__main__":
    main()
