"""The default settings, with a storage for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_ops.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", tmp_path.as_uri())
    load_settings.cache_clear()
    yield load_settings()
    load_settings.cache_clear()
