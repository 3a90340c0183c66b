"""A model version's way into Redis and back: what it shows, and an earlier one live again."""

from typing import Any

import polars as pl

from recsys_ops.models.deployments import (
    block_versions,
    list_deployments,
    record_deployment,
    release_version,
)
from recsys_ops.models.verdict import read_verdict
from recsys_ops.models.version import Manifest, load_manifest, read_frame
from recsys_ops.serving.client import Client
from recsys_ops.serving.layout import Lists
from recsys_ops.serving.publish import check_layout, previous_version, publish, swap_back
from recsys_ops.settings import ServingSettings
from recsys_ops.storage.objects import Storage


def read_lists(storage: Storage, manifest: Manifest) -> Lists:
    """Raises ModelError when a file is not the one the manifest names."""

    def lists(name: str, key: str) -> pl.DataFrame:
        return read_frame(storage, manifest, name).select("items", id=key)

    def overall(name: str) -> list[str]:
        return (
            read_frame(storage, manifest, name)["item_id"].head(manifest.spec.lists.top_n).to_list()
        )

    return Lists(
        users=lists("recommendations", "user_id"),
        similar=lists("similar", "item_id"),
        bought_together=lists("bought_together", "item_id"),
        categories=lists("categories", "category"),
        popular=overall("popular"),
        trending=overall("trending"),
    )


def roll_back(
    storage: Storage,
    client: Client,
    settings: ServingSettings,
    version: str,
    reason: str,
    by: str | None,
) -> dict[str, Any]:
    """Block what is newer, put a version live again, release it, and note who wanted it and why.

    Blocked are all deployed versions that have learnt from the version's last day or a later one: the one rolled back from, and
    those in between. Redis swaps back where it still has the version as the previous one, which moves no lists; else it is
    published anew. Repeatable.

    Raises NotBlessedError, ModelError, ServingError.
    """
    manifest = load_manifest(storage, version)
    read_verdict(storage, version)
    check_layout(client, settings)
    swaps = previous_version(client, settings) == version
    lists = None if swaps else read_lists(storage, manifest)
    past = list_deployments(storage)
    newer = sorted({d["version"] for d in past if d["day"] >= str(manifest.day)} - {version})
    # first, so that no run puts them live again meanwhile
    block_versions(storage, newer, f"rolled back to {version}: {reason}")
    if lists is None:
        swap_back(client, settings, version)
    else:
        publish(client, settings, version, lists)
    release_version(storage, version)
    record_deployment(storage, version, manifest.day, reason, by)
    return {
        "version": version,
        "rolled_back_from": newer,
        "reason": reason,
        "swapped_back": swaps,
        "by": by,
    }
