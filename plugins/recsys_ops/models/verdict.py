"""A version's verdict, sealed by the gate: only what the gate has checked can be published."""

import json
from collections.abc import Mapping
from typing import Any

from recsys_ops.errors import NotBlessedError
from recsys_ops.models import files
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage

# the files that the gate decides about; the manifest names all others with their SHA-256
_CHECKED = (files.MANIFEST, files.METRICS)


def write_verdict(storage: Storage, version: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Write a verdict and return it as written.

    Added are the SHA-256 of the files that the gate has checked, and of the verdict itself. The
    same verdict gives the same bytes.
    """
    checked = {
        name: serialization.sha256(storage.get(paths.model(version, name))) for name in _CHECKED
    }
    sealed = {"version": version, **verdict, "judged": checked}
    sealed["sha256"] = _seal(sealed)
    storage.write_json(paths.model(version, files.VERDICT), sealed)
    return sealed


def read_verdict(storage: Storage, version: str) -> dict[str, Any]:
    """The verdict of a version that may go live: it is blessed or forced.

    Raises NotBlessedError if it is neither, if the verdict is of another version, and if the
    verdict or a file that the gate has checked was changed since; StorageError if there is none.
    """
    path = paths.model(version, files.VERDICT)
    verdict = storage.read_json(path)
    if (
        not isinstance(verdict, dict)
        or verdict.get("version") != version
        or verdict.get("sha256") != _seal(verdict)
    ):
        raise NotBlessedError(
            f"{storage.url(path)} was changed since the gate wrote it, or is the verdict of "
            "another version: run gate again"
        )
    for name, digest in verdict["judged"].items():
        if serialization.sha256(storage.get(paths.model(version, name))) != digest:
            raise NotBlessedError(
                f"{storage.url(paths.model(version, name))} was changed since the gate checked it: "
                "run gate again"
            )
    if verdict["blessed"] is not True and not verdict["forced"]:
        raise NotBlessedError(f"{version} is {verdict['summary']}")
    return verdict


def _seal(verdict: Mapping[str, Any]) -> str:
    """SHA-256 of a verdict's content."""
    content = {name: value for name, value in verdict.items() if name != "sha256"}
    return serialization.sha256(json.dumps(content, sort_keys=True).encode())
