"""What every gate rule returns, and how it reads a number from the metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# the content of metrics.json
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class RuleResult:
    """The result of one rule; value and threshold are None where there was nothing to compare."""

    name: str
    value: float | None
    threshold: float | None
    passed: bool
    sentence: str


def number(metrics: Metrics, *path: str) -> float:
    """The number at a path of keys. Raises KeyError or ValueError where there is none."""
    value: Any = metrics
    for key in path:
        value = value[key]
    return finite_number(value, ".".join(path))


def finite_number(value: Any, name: str) -> float:
    """The value as a float. Raises ValueError with its `name` where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, not a finite number")
    return float(value)
