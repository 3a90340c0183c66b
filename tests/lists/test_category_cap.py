"""The category cap, against trying all items of all users one by one."""

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from recsys_ops.als.factors import Factors
from recsys_ops.als.top_n import top_n
from recsys_ops.lists.category_cap import capped_top_n, category_cap

NO_PINS = pl.Series([], dtype=pl.String)


def one_by_one(
    factors: Factors,
    n: int,
    category: list[str | None],
    remaining: dict[str, int],
    seen: np.ndarray,
    eligible: np.ndarray,
) -> list[list[int]]:
    lists = []
    for user, of_user in enumerate(factors.user @ factors.item.T):
        left, chosen = dict(remaining), []
        for item in np.argsort(-of_user, kind="stable"):
            name = category[item]
            if (
                len(chosen) < n
                and eligible[item]
                and not seen[user, item]
                and (name is None or left[name] > 0)
            ):
                chosen.append(int(item))
                if name is not None:
                    left[name] -= 1
        lists.append(chosen if factors.user[user].any() else [])
    return lists


@pytest.mark.parametrize("max_per_category", [1, 2, 5])
@pytest.mark.parametrize("categories", [2, 6, 40])
def test_a_capped_list_is_the_best_and_short_only_if_nothing_fits(
    max_per_category: int, categories: int
) -> None:
    rng = np.random.default_rng([max_per_category, categories])
    # small integers: sums are exact, and many scores are equal
    factors = Factors(
        rng.integers(-3, 4, (50, 6)).astype(np.float32),
        rng.integers(-3, 4, (400, 6)).astype(np.float32),
    )
    factors.user[3] = 0
    names = [
        f"c{code}" if code else None for code in np.minimum(rng.geometric(0.2, 400) - 1, categories)
    ]
    if categories == 2:
        names = [name or "c1" for name in names]  # then many lists cannot be filled
    seen, eligible = rng.random((50, 400)) < 0.3, rng.random(400) < 0.8
    pinned = pl.Series(["c1", None])
    cap = category_cap(pl.Series(names), pinned, max_per_category)
    ids, scores = capped_top_n(
        factors, 7, cap, top_n, seen=sparse.csr_matrix(seen), eligible=eligible
    )
    remaining = {name: max_per_category - (name == "c1") for name in names if name}
    expected = one_by_one(factors, 7, names, remaining, seen, eligible)
    assert [[item for item in row if item >= 0] for row in ids.tolist()] == expected
    assert (np.isfinite(scores) == (ids >= 0)).all()
    assert any(len(items) == 7 for items in expected) or categories == 2


def test_items_without_a_category_are_not_capped() -> None:
    factors = Factors(np.ones((1, 1), np.float32), np.array([[4], [3], [2], [1]], np.float32))
    cap = category_cap(pl.Series([None, None, None, "a"], dtype=pl.String), NO_PINS, 1)
    assert capped_top_n(factors, 4, cap, top_n, seen=None, eligible=np.ones(4, bool))[
        0
    ].tolist() == [[0, 1, 2, 3]]
    cap = category_cap(pl.Series([None] * 4, dtype=pl.String), NO_PINS, 1)
    assert capped_top_n(factors, 3, cap, top_n, seen=None, eligible=np.ones(4, bool))[
        0
    ].tolist() == [[0, 1, 2]]


def test_users_of_many_blocks_get_the_lists_they_would_get_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(5)
    factors = Factors(
        rng.integers(-3, 4, (41, 5)).astype(np.float32),
        rng.integers(-3, 4, (120, 5)).astype(np.float32),
    )
    cap = category_cap(pl.Series([f"c{n % 3}" for n in range(120)]), NO_PINS, 2)
    seen = sparse.csr_matrix(rng.random((41, 120)) < 0.2)
    one_block = capped_top_n(factors, 6, cap, top_n, seen=seen, eligible=np.ones(120, bool))
    monkeypatch.setattr("recsys_ops.lists.category_cap._USERS_AT_ONCE", 8)
    many_blocks = capped_top_n(factors, 6, cap, top_n, seen=seen, eligible=np.ones(120, bool))
    assert all(
        np.array_equal(one, other) for one, other in zip(one_block, many_blocks, strict=True)
    )
