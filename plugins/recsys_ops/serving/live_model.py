"""What the lookup service loads of the live version: factors for fold-in, catalogue for details."""

import asyncio
import logging
import time
from dataclasses import dataclass

import polars as pl

from recsys_ops.errors import RecsysError
from recsys_ops.lists.category_cap import category_cap
from recsys_ops.lists.fold_in import FoldIn
from recsys_ops.models.version import load_manifest, read_factors, read_frame
from recsys_ops.storage import paths
from recsys_ops.storage.generations import generations
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 30


@dataclass(frozen=True)
class CatalogueItem:
    """What the catalogue says of an item; None where it has no value."""

    title: str | None
    category: str | None
    price: float | None


@dataclass(frozen=True)
class LiveModel:
    """What the lookup service needs of a version.

    catalogue : by item id, the catalogue of the version's day; None where it is gone
    """

    version: str
    fold_in: FoldIn
    catalogue: dict[str, CatalogueItem] | None


def load_live_model(storage: Storage, version: str) -> LiveModel:
    """Read a version's files, for a large shop in seconds. Raises ModelError, StorageError."""
    manifest = load_manifest(storage, version)
    spec, found = manifest.spec, generations(storage, paths.CATALOGUE, manifest.day)
    catalogue = storage.read_parquet(found[-1].path) if found else None
    items, popular = (
        read_frame(storage, manifest, "items"),
        read_frame(storage, manifest, "popular"),
    )
    pinned = popular.filter(pl.col("score").is_null())["item_id"]
    cap = None
    if catalogue is not None and spec.lists.max_per_category:
        cap = category_cap(
            _categories(catalogue, items["item_id"]),
            _categories(catalogue, pinned),
            spec.lists.max_per_category,
        )
    factors = read_factors(storage, manifest)
    fold_in = FoldIn(
        factors, items, spec.confidence, spec.training, pinned=pinned.to_list(), cap=cap
    )
    return LiveModel(version, fold_in, None if catalogue is None else _catalogue_items(catalogue))


class LiveModels:
    """Loads the live version in a thread, while the version before it still answers."""

    def __init__(self, storage: Storage) -> None:
        self.current: LiveModel | None = None
        self._storage = storage
        self._not_before: dict[str, float] = {}
        self._loading: asyncio.Task[None] | None = None

    def notice(self, version: str) -> None:
        """Load a version that Redis shows, if it is not loaded yet.

        Nothing is done while another version is being loaded. A version is read at most once every
        30 s, also while storage is down or a broken swap shows two versions.
        """
        if self._loading or (self.current and self.current.version == version):
            return
        if time.monotonic() < self._not_before.get(version, 0):
            return
        self._loading = asyncio.create_task(self._load(version))

    async def _load(self, version: str) -> None:
        started = time.monotonic()
        try:
            self.current = await asyncio.to_thread(load_live_model, self._storage, version)
            log.info("loaded version %s in %.1f s", version, time.monotonic() - started)
            if self.current.catalogue is None:
                log.warning(
                    "the catalogue of version %s is gone: "
                    "no details, and no lists.max_per_category in fold-in",
                    version,
                )
        except Exception as error:
            log.error(
                "version %s cannot be loaded, next attempt in %d s: %s",
                version,
                _RETRY_AFTER_S,
                error,
                exc_info=not isinstance(error, RecsysError),
            )
        finally:
            self._not_before[version] = time.monotonic() + _RETRY_AFTER_S
            self._loading = None


def _categories(catalogue: pl.DataFrame, ids: pl.Series) -> pl.Series:
    return ids.to_frame("item_id").join(catalogue, on="item_id", how="left", maintain_order="left")[
        "category"
    ]


def _catalogue_items(catalogue: pl.DataFrame) -> dict[str, CatalogueItem]:
    price = pl.when(pl.col("price").is_finite()).then("price")
    columns = catalogue.select("title", "category", price)
    return dict(zip(catalogue["item_id"], map(CatalogueItem, *columns), strict=True))
