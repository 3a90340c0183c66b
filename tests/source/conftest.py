from pathlib import Path

import pytest
import sqlalchemy as sa

from recsys_ops.source.url import sqlalchemy_url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> sa.URL:
    """A SQLite file with a name that must be quoted in a URL."""
    file = tmp_path / "the shop #1?.db"
    file.touch()
    return sqlalchemy_url("sqlite", host=str(file))
