"""Rolling back: an earlier model version becomes live again."""

from functools import partial
from typing import Any

from recsys_ops.models.deployments import (
    Deployment,
    DeploymentState,
    block_versions,
    recorded_swap,
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

    Raises NotBlessedError, ModelError, StorageError, ServingError.
    """
    manifest = load_manifest(storage, version)
    read_verdict(storage, version)
    nodes = find_nodes(client, settings)
    check_layout(nodes)
    swaps = previous_version(nodes) == version
    deployment = Deployment(version=version, day=str(manifest.day), reason=reason, by=by)
    newer: list[str] = []

    def block_newer(state: DeploymentState) -> None:
        unrecorded = [state["swapping"]] if state["swapping"] else []
        newer[:] = sorted(
            {
                deployed["version"]
                for deployed in [*state["deployments"], *unrecorded]
                if deployed["day"] >= deployment["day"]
            }
            - {version}
        )
        block_versions(state, newer, f"rolled back to {version}: {reason}")
        state["blocked"].pop(version, None)

    record = partial(recorded_swap, storage, deployment, block_newer)
    if swaps:
        swap_back(nodes, version, record)
    else:
        publish(client, settings, version, read_version_lists(storage, manifest), record)
    return {
        "version": version,
        "rolled_back_from": newer,
        "reason": reason,
        "swapped_back": swaps,
        "by": by,
    }
