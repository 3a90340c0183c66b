"""The database of a temporary AIRFLOW_HOME, as `make task-test` makes one."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

PUT = "from recsys_ops.operators.temporary_database import put_database; put_database()"
TABLES = "SELECT name FROM sqlite_master UNION SELECT version_num FROM alembic_version"


def start(home: Path, cache: str) -> subprocess.Popen[bytes]:
    """A process that puts the database into `home`."""
    home.mkdir()
    env = {**os.environ, "AIRFLOW_HOME": str(home), "XDG_CACHE_HOME": cache}
    return subprocess.Popen([sys.executable, "-c", PUT], env=env, stdout=subprocess.DEVNULL)


def tables(home: Path) -> set[str]:
    with closing(sqlite3.connect(home / "airflow.db")) as connection:
        return {name for (name,) in connection.execute(TABLES)}


def test_the_database_is_migrated_once_and_copied_afterwards(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("first", "beside", "later", "uncached")]
    cache = tmp_path / "cache"
    at_once = [start(home, str(cache)) for home in homes[:2]]
    assert [process.wait(120) for process in at_once] == [0, 0]
    (cached,) = (cache / "recsys_ops").iterdir()
    with closing(sqlite3.connect(cached)) as connection:
        connection.execute("CREATE TABLE copied (id INTEGER)")
    assert start(homes[2], str(cache)).wait(120) == 0
    assert start(homes[3], "/dev/null").wait(120) == 0
    migrated = tables(homes[0])
    assert "dag_run" in migrated
    assert tables(homes[1]) == tables(homes[3]) == migrated
    assert tables(homes[2]) == migrated | {"copied"}
