"""The catalogue of a day in storage."""

import logging
from datetime import date

import polars as pl

from recsys_ops.errors import DamagedError
from recsys_ops.ingest.plausibility import accepted
from recsys_ops.storage import paths
from recsys_ops.storage.generations import generations, write_generation
from recsys_ops.storage.objects import Storage
from recsys_ops.storage.serialization import from_frame

log = logging.getLogger(__name__)


def write_catalogue(
    storage: Storage, day: date, products: pl.DataFrame, min_kept_share: float, reason: str | None
) -> str | None:
    """Write the catalogue of a day, as its current one; returns the reason if it was needed.

    products : the catalogue frame of `source.catalogue`
    reason : why a loss of items is to be accepted, if a person has given one

    Raises DataError when more items are gone than `min_kept_share` allows since the last catalogue
    that was written, of whatever day, and no reason is given.
    """
    last = _last_items(storage)
    gone = last.is_in(products["item_id"].implode()).not_().sum()
    losses = []
    if gone > (1 - min_kept_share) * len(last):
        losses = [f"the catalogue lacks {gone:,} of the {len(last):,} items that it had"]
    why = accepted(losses, reason)
    write_generation(storage, paths.CATALOGUE, day, from_frame(products))
    return why


def _last_items(storage: Storage) -> pl.Series:
    """The item ids of the last catalogue that can be read."""
    for generation in reversed(generations(storage, paths.CATALOGUE)):
        try:
            return storage.read_parquet(generation.path)["item_id"]
        except DamagedError as error:
            log.warning("a damaged catalogue is left out: %s", error)
    return pl.Series(dtype=pl.String)
