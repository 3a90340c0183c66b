"""What a model was computed with: our sources and the packages."""

import platform
from importlib.metadata import version
from pathlib import Path

import recsys_ops
from recsys_ops.storage import serialization

# every source that a model's numbers depend on; log handling and storage are not among them
_SOURCES = (
    "als/*.py",
    "evaluation/*.py",
    "interactions/*.py",
    "lists/*.py",
    "jit.py",
    "worker/training_run.py",
)


def code_digest(package: Path = Path(recsys_ops.__file__).parent) -> str:
    """SHA-256 of the sources that determine a model's numbers.

    A model version of another digest is trained again, and a fit does not start from its factors.

    package : the folder of recsys_ops
    """
    sources = [path for pattern in _SOURCES for path in sorted(package.glob(pattern))]
    return serialization.sha256(b"".join(path.read_bytes() for path in sources))


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute a model, by name."""
    versions = {name: version(name) for name in ("implicit", "numba", "numpy", "polars", "scipy")}
    return versions | {"python": platform.python_version()}
