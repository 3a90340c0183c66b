"""Shops of known tastes to train on, made once and kept in a folder.

Who changes this file deletes the folder.

An item's popularity falls with its rank (Zipf-Mandelbrot), and it belongs to one taste. A user has
a few tastes, more when busier; the number of a user's events is log-normal. An event is mostly of
one of the user's tastes, sometimes of any item, and more likely of a popular one. So repeats fall
on what the user likes most. Each pair's confidence is that of `recsys_ops.interactions.matrix`, ``1
+ 16 * log1p(summed weight)`` with weights that halve in 90 days. One pair in five is held out for
some 20,000 users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

CACHE = Path("~/.cache/recsys-ops-bench").expanduser()
TYPES = ("view", "cart", "purchase")
WEIGHTS = np.array([1.0, 3.0, 5.0])
DAYS = 365
HALF_LIFE = 90
ALPHA = 16
EVALUATED = 20_000
HELD_OUT = 0.2
_MOST_TASTES = 16
_CELLS_A_PART = 1 << 21  # events are drawn in parts of this many cells: sorts stay small


@dataclass(frozen=True)
class Shape:
    """cells : pairs of a user and an item with events · spread : sigma of the events a user"""

    users: int
    items: int
    cells: int
    tastes: int
    spread: float


SHAPES = {
    "S": Shape(100_000, 2_465, 800_000, tastes=60, spread=1.0),
    "M": Shape(500_000, 30_000, 10_000_000, tastes=250, spread=1.0),
    # as many of each as MovieLens-32M
    "L": Shape(200_000, 84_000, 32_000_000, tastes=300, spread=1.1),
}


@dataclass(frozen=True)
class Events:
    """The events of a year, all (n_events,), sorted by user and item; a pair can have several.

    type : int8, index in `TYPES` · age : int16, days ago, 0 … 364 · held : bool, pair is held out
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    type: NDArray[np.int8]
    age: NDArray[np.int16]
    held: NDArray[np.bool_]


@dataclass(frozen=True)
class Data:
    """A shape's matrices.

    train : csr_matrix, (users, items), float32, confidence > 1
    new : bool, (train.nnz,), the pair has its first event today
    holdout : csr_matrix, (users, items), bool, none of it in `train`
    """

    train: sparse.csr_matrix
    new: NDArray[np.bool_]
    holdout: sparse.csr_matrix

    def yesterday(self) -> sparse.csr_matrix:
        """`train` without the new pairs; the shape is the same."""
        rows = np.repeat(np.arange(self.train.shape[0], dtype=np.int32), np.diff(self.train.indptr))
        old = ~self.new
        return sparse.csr_matrix(
            (self.train.data[old], (rows[old], self.train.indices[old])), shape=self.train.shape
        )


def load(name: str, folder: Path = CACHE) -> Data:
    """The shape of that name, from `folder` if it has it, else made and written there."""
    path = folder / f"{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = make(SHAPES[name])
        half = folder / f"{name}.half.npz"
        parts: dict[str, Any] = _parts("train", data.train) | _parts("holdout", data.holdout)
        np.savez(half, new=data.new, **parts)
        half.replace(path)
    with np.load(path) as stored:
        return Data(_matrix("train", stored), stored["new"], _matrix("holdout", stored))


def make(shape: Shape, seed: int = 1) -> Data:
    drawn = events(shape, seed)
    first = np.flatnonzero(_changes(_pairs(shape, drawn.user, drawn.item)))
    user, item, held = drawn.user[first], drawn.item[first], drawn.held[first]
    weight = np.add.reduceat(WEIGHTS[drawn.type] * 0.5 ** (drawn.age / HALF_LIFE), first)
    oldest = np.maximum.reduceat(drawn.age, first)
    confidence = (1 + ALPHA * np.log1p(weight)).astype(np.float32)

    def matrix(chosen: NDArray[np.bool_], values: NDArray[Any]) -> sparse.csr_matrix:
        counts = np.bincount(user[chosen], minlength=shape.users)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return sparse.csr_matrix(
            (values[chosen], item[chosen], starts), shape=(shape.users, shape.items)
        )

    return Data(matrix(~held, confidence), oldest[~held] == 0, matrix(held, held))


def events(shape: Shape, seed: int = 1) -> Events:
    """Draw until the shape's number of pairs without the held-out ones is reached.

    Every user and every item has an event.
    """
    rng = np.random.default_rng(seed)
    popularity = rng.permutation(1 / (np.arange(shape.items) + 10.0))
    taste = rng.integers(shape.tastes, size=shape.items)
    by_taste = np.argsort(taste, kind="stable")
    upto = np.concatenate([[0], np.cumsum(popularity[by_taste])])
    bounds = upto[np.searchsorted(taste[by_taste], np.arange(shape.tastes + 1))]
    tastes = (
        np.searchsorted(
            bounds, rng.random((shape.users, _MOST_TASTES)) * upto[-1], side="right"
        ).astype(np.int16)
        - 1
    )
    activity = rng.lognormal(sigma=shape.spread, size=shape.users)
    activity /= activity.sum()
    n_tastes = np.clip(np.sqrt(activity * shape.cells), 3, _MOST_TASTES)

    def drawn(user: NDArray[np.intp]) -> NDArray[np.int64]:
        # the first tastes are the strongest
        nth = (rng.random(len(user)) ** 2 * n_tastes[user]).astype(np.int8)
        liked = tastes[user, nth]
        anything = rng.random(len(user)) < 0.15
        low, high = (
            np.where(anything, 0, bounds[liked]),
            np.where(anything, upto[-1], bounds[liked + 1]),
        )
        place = np.searchsorted(upto, low + rng.random(len(user)) * (high - low), side="right") - 1
        return _pairs(shape, user, by_taste[np.minimum(place, shape.items - 1)])

    evaluated = rng.permutation(shape.users)[: min(EVALUATED, shape.users // 4)]
    to_meet = activity * shape.cells
    to_meet[evaluated] *= 1 + HELD_OUT
    # each item gets one user at least
    owner = rng.choice(shape.users, shape.items, p=activity)

    def draw_part(some: NDArray[np.intp]) -> NDArray[np.int64]:
        share, wanted, new = activity[some] / activity[some].sum(), to_meet[some].sum(), 1.0
        owned = np.flatnonzero((owner >= some[0]) & (owner <= some[-1]))
        pairs = np.sort(np.concatenate([_pairs(shape, owner[owned], owned), drawn(some)]))
        met = np.count_nonzero(_changes(pairs))
        while met < 0.998 * wanted:
            # the share of new pairs falls, so this never draws too many
            more = drawn(np.repeat(some, rng.multinomial(int((wanted - met) / new), share)))
            pairs = np.sort(np.concatenate([pairs, more]))
            before, met = met, np.count_nonzero(_changes(pairs))
            new = max(0.05, (met - before) / len(more))
        return pairs

    n_parts = -(-shape.cells // _CELLS_A_PART)
    pairs = np.concatenate(
        [draw_part(some) for some in np.array_split(np.arange(shape.users), n_parts)]
    )
    changes = _changes(pairs)
    user, item = np.divmod(pairs, shape.items)
    owners = user[changes]
    # a user's first pair is never held out, so nobody loses all
    held = (rng.random(len(owners)) < HELD_OUT) & np.isin(owners, evaluated) & ~_changes(owners)
    return Events(
        user.astype(np.int32),
        item.astype(np.int32),
        rng.choice(len(TYPES), len(pairs), p=[0.85, 0.11, 0.04]).astype(np.int8),
        rng.integers(DAYS, size=len(pairs), dtype=np.int16),
        held[np.cumsum(changes) - 1],
    )


def _pairs(shape: Shape, user: NDArray[Any], item: NDArray[Any]) -> NDArray[np.int64]:
    """One number for a pair, in the order of users, then items."""
    pairs: NDArray[np.int64] = user.astype(np.int64) * shape.items + item
    return pairs


def _changes(pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where another pair begins; `pairs` are sorted."""
    return np.concatenate([[True], pairs[1:] != pairs[:-1]])


def _parts(name: str, matrix: sparse.csr_matrix) -> dict[str, NDArray[Any]]:
    return {
        f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr", "shape")
    }


def _matrix(name: str, stored: Mapping[str, NDArray[Any]]) -> sparse.csr_matrix:
    data, indices, indptr, shape = (
        stored[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape")
    )
    return sparse.csr_matrix((data, indices, indptr), shape=tuple(shape))
