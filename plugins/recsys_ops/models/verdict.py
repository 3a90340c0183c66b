"""A version's ``verdict.json``: sealed by the gate, so that what is published is what was judged."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from recsys_ops.errors import NotBlessedError
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

_NAME = "verdict.json"
_JUDGED = ("manifest.json", "metrics.json")


def write_verdict(storage: Storage, version: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a verdict with the SHA-256 of what was judged and of its own content; the same verdict gives the same bytes."""
    judged = {name: _sha256(storage.get(paths.model(version, name))) for name in _JUDGED}
    sealed = {"version": version, **verdict, "judged": judged}
    sealed["sha256"] = _seal(sealed)
    storage.write_json(paths.model(version, _NAME), sealed)
    return sealed


def read_verdict(storage: Storage, version: str) -> dict[str, Any]:
    """The verdict of a version that may go live: it is blessed or was forced.

    Raises NotBlessedError when it is neither, when it is not this version's, and when it, or what it judged, was changed since;
    StorageError when there is none.
    """
    url, verdict = (
        storage.url(paths.model(version, _NAME)),
        storage.read_json(paths.model(version, _NAME)),
    )
    if (
        not isinstance(verdict, dict)
        or verdict.get("version") != version
        or verdict.get("sha256") != _seal(verdict)
    ):
        raise NotBlessedError(
            f"{url} was changed since the gate wrote it, or is another version's: run gate again"
        )
    for name, digest in verdict["judged"].items():
        if _sha256(storage.get(paths.model(version, name))) != digest:
            raise NotBlessedError(
                f"{storage.url(paths.model(version, name))} is not what the gate judged: run gate again"
            )
    if verdict["blessed"] is not True and not verdict["forced"]:
        raise NotBlessedError(f"{version} is {verdict['summary']}")
    return verdict


def _seal(verdict: Mapping[str, Any]) -> str:
    content = {name: value for name, value in verdict.items() if name != "sha256"}
    return _sha256(json.dumps(content, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
