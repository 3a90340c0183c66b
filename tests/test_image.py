"""The worker's image, without a Docker engine.

The Dockerfile is read, and its packages are installed into a virtual environment.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.jobs import DAY

from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import verify_version
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

ROOT = Path(__file__).parents[1]
LINES = (
    re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile.worker").read_text(), flags=re.M)
    .replace("\\\n", " ")
    .splitlines()
)
INSTRUCTIONS = [(line.split()[0], line.partition(" ")[2].strip()) for line in LINES if line.strip()]
IGNORED = [
    line
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]
# gigabytes that need a GPU; CuPy itself is in the environment of the tests, so in uv's cache
CUDA = re.compile(r"nvidia-|cuda-toolkit=")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/blob")


def all_of(kind: str) -> list[str]:
    return [argument for name, argument in INSTRUCTIONS if name == kind]


def copied() -> list[str]:
    """The files of this folder that the image copies."""
    return [source for argument in all_of("COPY") for source in argument.split()[:-1]]


def reaches_the_engine(path: str) -> bool:
    """Whether .dockerignore lets a path through.

    The last pattern that matches the path, or a folder above it, decides.
    """
    kept = True
    for line in IGNORED:
        pattern = line.lstrip("!").removeprefix("**/")
        above = [path, *(str(parent) for parent in Path(path).parents)]
        if any(
            fnmatch(part, pattern)
            for part in [*above, *(Path(path).parts if "**/" in line else ())]
        ):
            kept = line.startswith("!")
    return kept


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package in a lock; several if they depend on Python's version."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.M):
        found.setdefault(package, set()).add(version)
    return found


def test_files_that_the_image_copies_exist_and_are_not_ignored() -> None:
    assert copied() == [
        "requirements-worker.txt",
        "pyproject.toml",
        "README.md",
        "plugins/recsys_ops",
    ]
    for path in [
        *copied(),
        "plugins/recsys_ops/worker/job.py",
        "requirements.txt",
    ]:  # the last for the Compose file
        assert (ROOT / path).exists()
        assert reaches_the_engine(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "dags/recsys_retrain.py",
        "plugins/recsys_ops/__pycache__/a.pyc",
    ],
)
def test_other_files_are_ignored(path: str) -> None:
    assert not reaches_the_engine(path)


def test_the_base_image_is_pinned_to_a_patch_release_of_cuda_12() -> None:
    (base,) = all_of("FROM")
    assert re.fullmatch(r"nvidia/cuda:12\.\d+\.\d+-base-ubuntu24\.04", base)


def test_the_job_does_not_run_as_root() -> None:
    kinds = [kind for kind, _ in INSTRUCTIONS]
    (user,) = all_of("USER")
    assert user not in ("0", "root")
    assert f"useradd --create-home --uid 10001 {user}" in all_of("RUN")
    assert {"RUN", "COPY"}.isdisjoint(kinds[kinds.index("USER") :])


def test_the_container_is_the_worker_with_the_environments_python() -> None:
    (entry,) = all_of("ENTRYPOINT")
    assert json.loads(entry) == ["python3", "-m", "recsys_ops.worker"]
    assert "python3.12 -m venv /opt/venv" in all_of("RUN")[0]
    assert all_of("ENV") == ["PATH=/opt/venv/bin:$PATH"]


def test_the_lock_has_cuda_but_no_airflow_and_otherwise_airflows_versions() -> None:
    worker, airflow = locked("requirements-worker.txt"), locked("requirements.txt")
    assert not [name for name in worker if "airflow" in name]
    assert {name: versions for name, versions in worker.items() if name in airflow} == {
        name: airflow[name] for name in worker if name in airflow
    }
    assert {
        "nvidia-cuda-runtime-cu12",
        "nvidia-cuda-nvrtc-cu12",
        "nvidia-cublas-cu12",
        "nvidia-cusolver-cu12",
    } <= worker.keys()


def test_a_job_needs_only_the_lock_and_the_package(
    storage: Storage,
    make_job: Callable[..., JobSpec],
    tmp_path: Path,
) -> None:
    spec = make_job(iterations=2, factors=4)
    uv, python = [sys.executable, "-m", "uv"], tmp_path / "venv/bin/python3"
    lock, source = tmp_path / "requirements-worker.txt", tmp_path / "recsys-ops"
    wanted = [
        line
        for line in (ROOT / lock.name).read_text().splitlines(keepends=True)
        if not CUDA.match(line)
    ]
    lock.write_text("".join(wanted))
    for path in copied():  # a build leaves files next to the sources
        take = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        take(ROOT / path, source / path)

    install = [*uv, "pip", "install", "--quiet", "--python", str(python), "--no-deps"]
    bare = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    for command in (
        [*uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")],
        [*install, "--requirement", str(lock)],
        [*install, "--no-build-isolation", str(source)],
    ):
        subprocess.run(command, check=True, env=bare)
    command = [str(python), "-m", "recsys_ops.worker", storage.url(paths.job(DAY, "spec.json"))]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)

    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    assert "WARNING" not in done.stderr  # the same code as here, byte for byte
    verify_version(storage, spec.version)
