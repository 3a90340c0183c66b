"""A small layout and versions whose items say which version they are from."""

import polars as pl
import pytest

from recsys_ops.settings import ServingSettings


@pytest.fixture
def settings() -> ServingSettings:
    return ServingSettings(buckets=64, top_n=5)


@pytest.fixture
def recommendations() -> pl.DataFrame:
    """Three users of version v1."""
    return pl.DataFrame({"user_id": ["ann", "bob", "cleo"], "items": [["v1-a", "v1-b"], ["v1-b"], ["v1-c", "v1-a"]]})
