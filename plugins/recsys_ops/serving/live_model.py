"""What the look-up keeps of the live version beside Redis: its factors for fold-in, its day's catalogue for details."""

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
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_AGAIN_AFTER_S = 30


@dataclass(frozen=True)
class Product:
    title: str | None
    category: str | None
    price: float | None


@dataclass(frozen=True)
class LiveModel:
    """products : of the catalogue of the version's day, by item id; None where that day's snapshot is gone"""

    version: str
    fold_in: FoldIn
    products: dict[str, Product] | None


def load_live_model(storage: Storage, version: str) -> LiveModel:
    """Read a version's files; seconds for a large shop. Raises ModelError and StorageError."""
    manifest = load_manifest(storage, version)
    spec, path = manifest.spec, paths.catalogue(manifest.day)
    catalogue = storage.read_parquet(path) if storage.exists(path) else None
    items, popular = (
        read_frame(storage, manifest, "items"),
        read_frame(storage, manifest, "popular"),
    )
    pinned = popular.filter(pl.col("score").is_null())["item_id"]
    limit = None
    if catalogue is not None and spec.lists.max_per_category:
        limit = category_cap(
            _categories(catalogue, items["item_id"]),
            _categories(catalogue, pinned),
            spec.lists.max_per_category,
        )
    factors = read_factors(storage, manifest)
    fold_in = FoldIn(
        factors, items, spec.confidence, spec.training, pinned=pinned.to_list(), cap=limit
    )
    return LiveModel(version, fold_in, None if catalogue is None else _products(catalogue))


class LiveModels:
    """The live version, loaded in a thread while the one before it goes on answering."""

    def __init__(self, storage: Storage) -> None:
        self.current: LiveModel | None = None
        self._storage = storage
        self._not_before: dict[str, float] = {}
        self._loading: asyncio.Task[None] | None = None

    def notice(self, version: str) -> None:
        """A version was met in Redis: load it, unless it is there, another is under way, or it was tried less than 30 s ago.

        The last keeps a half swapped Redis, which shows two versions in turn, from having both loaded without end.
        """
        if self._loading or (self.current and self.current.version == version):
            return
        if time.monotonic() < self._not_before.get(version, 0):
            return
        self._loading = asyncio.create_task(self._load(version))

    async def _load(self, version: str) -> None:
        began = time.monotonic()
        try:
            self.current = await asyncio.to_thread(load_live_model, self._storage, version)
            missing = (
                ""
                if self.current.products is not None
                else "; its day's catalogue is gone: no details, no lists.max_per_category in fold-in"
            )
            log.info("loaded version %s in %.1f s%s", version, time.monotonic() - began, missing)
        except Exception as error:
            unknown = not isinstance(error, RecsysError)
            log.error(
                "version %s cannot be loaded, next attempt in %d s: %s",
                version,
                _AGAIN_AFTER_S,
                error,
                exc_info=unknown,
            )
        finally:
            self._not_before[version] = time.monotonic() + _AGAIN_AFTER_S
            self._loading = None


def _categories(catalogue: pl.DataFrame, ids: pl.Series) -> pl.Series:
    return ids.to_frame("item_id").join(catalogue, on="item_id", how="left", maintain_order="left")[
        "category"
    ]


def _products(catalogue: pl.DataFrame) -> dict[str, Product]:
    price = pl.when(pl.col("price").is_finite()).then("price")
    columns = catalogue.select("title", "category", price)
    return dict(zip(catalogue["item_id"], map(Product, *columns), strict=True))
