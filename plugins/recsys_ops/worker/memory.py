"""The memory that a job needs, and the memory that the machine has."""

import os
from bisect import bisect_right
from pathlib import Path

from recsys_ops.models.spec import JobInputs, JobSpec

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")

# bytes
_LIBRARIES = 300 * 2**20
_CELL = 8
_FACTOR = 4
_LISTED_ITEM = 70
_BASKET_ITEM = 80
# of the factors: the start, the result, the factors at work, and those on their way to a checkpoint
_COPIES = 4


def machine_memory() -> int:
    """The bytes that this process may use.

    This is the machine's memory, or the container's limit if that is lower (Linux, cgroup 2).
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no limit of its own: the file is missing or says "max"
        return machine


def needed_memory(inputs: JobInputs, spec: JobSpec, factors: int) -> int:
    """Roughly the bytes that a job needs with this number of factors.

    They are for the libraries; the matrices, `full` also transposed; the copies of the factors;
    the served lists, one for each user and two for each item; the baskets.
    """
    train, full = inputs.interactions.train, inputs.interactions.full
    n_users, n_items = full.shape
    return int(
        _LIBRARIES
        + _CELL * (train.nnz + 2 * full.nnz)
        + _FACTOR * _COPIES * (n_users + n_items) * factors
        + _LISTED_ITEM * (n_users + 2 * n_items) * spec.lists.top_n
        + _BASKET_ITEM * inputs.list_inputs.baskets.items.nnz
    )


def memory_advice(inputs: JobInputs, spec: JobSpec) -> tuple[bool, str]:
    """Whether the job fits into the machine's memory, and a sentence about it.

    If it does not fit, the sentence names the largest `training.factors` that would.
    """
    factors, memory = spec.training.factors, machine_memory()
    needed = needed_memory(inputs, spec, factors)
    need = f"{factors} factors need about {needed:,} bytes, the machine has {memory:,}"
    if needed <= memory:
        return True, need
    fitting = bisect_right(
        range(1, factors), memory, key=lambda number: needed_memory(inputs, spec, number)
    )
    if not fitting:
        return False, f"{need}; no number of factors would fit"
    return False, f"{need}; training.factors = {fitting} would fit"


def out_of_memory_message(details: str) -> str:
    """The error message of a job that ran out of memory."""
    return (
        f"the machine's memory does not suffice ({details}): lower training.factors or "
        "confidence.window_days, or use a larger machine"
    )
