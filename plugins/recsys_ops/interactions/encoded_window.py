"""The events of a window as integers, and user–item pairs as numbers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys_ops.settings import ConfidenceSettings, EventType

EVENT_TYPES = get_args(EventType)

_type, _age = pl.col("event_type"), pl.col("age")


def first_window_day(day: date, confidence: ConfidenceSettings) -> date:
    """The first of the ``window_days`` days that end with `day`."""
    return day - timedelta(days=confidence.window_days - 1)


@dataclass(frozen=True)
class EncodedWindow:
    """The events of a window, ids and event types as integers.

    A pair's number is ``user * n_items + item``. An event's key packs the number of its pair, its
    type and its age into one int64. So sorted keys have the events of a pair together, within it
    those of a type, the newest first.

    users, items : String series, sorted, unique
    events : user, item, event_type (the index in `EVENT_TYPES`), age (days before the run's day)
    weights : float64, (n_event_types, window_days), what a first event of a type and age weighs
    keys : int64, sorted, one for each event whose type has a weight
    """

    users: pl.Series
    items: pl.Series
    events: pl.LazyFrame
    weights: NDArray[np.float64]
    keys: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_users, n_items)"""
        return len(self.users), len(self.items)

    @property
    def pair(self) -> pl.Expr:
        """The number of an event's pair, for `events`."""
        return pl.col("user") * len(self.items) + pl.col("item")

    @property
    def key_bits(self) -> int:
        """How many of the lowest bits of a key hold type and age."""
        return self.weights.size.bit_length()

    def of_types(self, event_types: Iterable[EventType]) -> pl.LazyFrame:
        """The events of these types."""
        return self.events.filter(_type.is_in(_codes(event_types)))

    def distinct_pairs(self, events: pl.LazyFrame) -> NDArray[np.int64]:
        """The numbers of the pairs that have events, ascending."""
        return events.select(self.pair.unique().sort()).collect().to_series().to_numpy()


def encode_window(events: pl.DataFrame, day: date, confidence: ConfidenceSettings) -> EncodedWindow:
    """The window that ends with `day`, encoded. Arguments as in `build_interactions`."""
    users, items = _ids(events["user_id"]), _ids(events["item_id"])
    encoded = (
        events.lazy()
        .filter(pl.col("day").is_between(first_window_day(day, confidence), day))
        .select(
            user=pl.col("user_id").cast(pl.Enum(users)).to_physical().cast(pl.Int64),
            item=pl.col("item_id").cast(pl.Enum(items)).to_physical(),
            event_type=_type.cast(pl.Enum(EVENT_TYPES), strict=False).to_physical().cast(pl.Int64),
            age=(pl.lit(day) - pl.col("day")).dt.total_days().cast(pl.Int32),
        )
    )
    window = EncodedWindow(
        users, items, encoded, _newest_weights(confidence), np.zeros(0, dtype=np.int64)
    )
    key = window.pair * 2**window.key_bits + _type * confidence.window_days + _age
    weighted = window.of_types(confidence.weights)
    keys = weighted.select(key.sort()).collect().to_series().to_numpy()
    return replace(window, keys=keys)


def with_user_and_item_in(
    pairs: NDArray[np.int64], others: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.int64]:
    """Those of `pairs` whose user and whose item each have a pair among `others`."""
    users, items = (np.zeros(n, dtype=bool) for n in shape)
    user, item = np.divmod(others, max(shape[1], 1))
    users[user] = items[item] = True
    user, item = np.divmod(pairs, max(shape[1], 1))
    return pairs[users[user] & items[item]]


def stored_pairs(matrix: sparse.csr_matrix) -> NDArray[np.int64]:
    """The numbers of the stored cells, row by row."""
    users = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    pairs: NDArray[np.int64] = users * matrix.shape[1] + matrix.indices
    return pairs


def matrix_of(
    pairs: NDArray[np.int64], data: NDArray[Any], shape: tuple[int, int]
) -> sparse.csr_matrix:
    """The matrix with `data` in the cells of `pairs`, which ascend."""
    users, items = np.divmod(pairs, max(shape[1], 1))
    ends = np.cumsum(np.bincount(users, minlength=shape[0]))
    return sparse.csr_matrix(
        (data, items.astype(np.int32), np.append(0, ends).astype(np.int32)), shape=shape
    )


def _ids(column: pl.Series) -> pl.Series:
    return column.dtype.categories if isinstance(column.dtype, pl.Enum) else column.unique().sort()


def _codes(event_types: Iterable[EventType]) -> list[int]:
    return [EVENT_TYPES.index(event_type) for event_type in event_types]


def _newest_weights(confidence: ConfidenceSettings) -> NDArray[np.float64]:
    """(n_event_types, window_days)"""
    by_type = np.array([confidence.weights.get(event_type, 0.0) for event_type in EVENT_TYPES])
    age = np.arange(confidence.window_days)
    if confidence.half_life_days:
        decay = 0.5 ** (age / confidence.half_life_days)
    else:
        decay = np.ones(len(age))
    return by_type[:, None] * decay
