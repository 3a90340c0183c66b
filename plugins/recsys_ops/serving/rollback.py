"""Rolling back: an earlier model version becomes live again."""

from typing import Any

from recsys_ops.models.deployments import (
    block_versions,
    list_deployments,
    record_deployment,
    release_version,
)
from recsys_ops.models.verdict import read_verdict
from recsys_ops.models.version import load_manifest
from recsys_ops.serving.client import RedisClient
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import check_layout, previous_version, publish, swap_back
from recsys_ops.serving.version_lists import read_version_lists
from recsys_ops.settings import ServingSettings
from recsys_ops.storage.objects import Storage


def roll_back(
    storage: Storage,
    client: RedisClient,
    settings: ServingSettings,
    version: str,
    reason: str,
    by: str | None,
) -> dict[str, Any]:
    """Block the newer versions, make a version live again, release it, and record who and why.

    Blocked is every deployed version whose last day is the version's last day or a later one. Where
    Redis holds the version as the previous one, it is swapped back, which moves no lists; else it
    is published again. Repeatable.

    Raises NotBlessedError, ModelError, ServingError.
    """
    manifest = load_manifest(storage, version)
    read_verdict(storage, version)
    nodes = find_nodes(client, settings)
    check_layout(nodes)
    swaps = previous_version(nodes) == version
    lists = None if swaps else read_version_lists(storage, manifest)
    newer = {
        deployment["version"]
        for deployment in list_deployments(storage)
        if deployment["day"] >= str(manifest.day)
    } - {version}
    # before the swap, so that no run makes them live again in the meantime
    block_versions(storage, sorted(newer), f"rolled back to {version}: {reason}")
    if lists is None:
        swap_back(nodes, version)
    else:
        publish(client, settings, version, lists)
    release_version(storage, version)
    record_deployment(storage, version, manifest.day, reason, by)
    return {
        "version": version,
        "rolled_back_from": sorted(newer),
        "reason": reason,
        "swapped_back": swaps,
        "by": by,
    }
