"""The migrated database of a temporary AIRFLOW_HOME, which serves one command."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path


def put_database() -> None:
    """Put a migrated SQLite database into AIRFLOW_HOME, where Airflow expects it.

    Migrating takes seconds and copying does not. The copy's source is in the user's cache folder;
    the first call for an Airflow version makes it. Calls may run at the same time.
    """
    from airflow import __version__

    database = Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"
    cached = _cache_folder() / f"airflow-{__version__}.db"
    if cached.is_file():
        shutil.copyfile(cached, database)
        return
    from airflow.utils.db import initdb

    initdb()
    try:
        _copy_to_cache(database, cached)
    except OSError:
        return  # without a cache folder the next call migrates again


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_ops"


def _copy_to_cache(database: Path, cached: Path) -> None:
    """Copy a database that may be open; the cached file appears whole or not at all."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
        copy = Path(folder) / cached.name
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.replace(cached)
