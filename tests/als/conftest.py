"""The arrays that the GPU solver computes with: NumPy's, and CuPy's where there is a GPU."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from recsys_ops.als import device


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With a thread for each core they wait for each other longer than they compute."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(
    params=[np, device.cupy()] if device.find_gpu().name else [np],
    ids=lambda module: module.__name__,
)
def xp(request: pytest.FixtureRequest) -> Any:
    return request.param
