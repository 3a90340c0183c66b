"""The lists of a model version, read from storage."""

import polars as pl

from recsys_ops.models.version import Manifest, read_frame
from recsys_ops.serving.layout import VersionLists
from recsys_ops.storage.objects import Storage


def read_version_lists(storage: Storage, manifest: Manifest) -> VersionLists:
    """The lists that are published. Raises ModelError when a file is not the manifest's."""

    def lists(name: str, id_column: str) -> pl.DataFrame:
        return read_frame(storage, manifest, name).select("items", id=id_column)

    def items(name: str) -> list[str]:
        top_n = manifest.spec.lists.top_n
        return read_frame(storage, manifest, name)["item_id"].head(top_n).to_list()

    return VersionLists(
        users=lists("recommendations", "user_id"),
        similar=lists("similar", "item_id"),
        bought_together=lists("bought_together", "item_id"),
        categories=lists("categories", "category"),
        popular=items("popular"),
        trending=items("trending"),
    )
