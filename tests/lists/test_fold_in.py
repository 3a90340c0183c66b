"""Fold-in against the definition of ALS, and against a training on the basket of its owner."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys_ops.als.factors import Factors, row_regularization
from recsys_ops.als.fit import fit
from recsys_ops.als.top_n import top_n
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.lists.build import popularity
from recsys_ops.lists.category_cap import category_cap
from recsys_ops.lists.fold_in import FoldIn
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings, TrainingSettings

DAY = date(2026, 3, 10)
USERS, ITEMS = 60, 40
CARTS = ConfidenceSettings(window_days=30)


def shop(confidence: ConfidenceSettings, seed: int = 1) -> Interactions:
    """Baskets of the day, everything put into the cart once, by taste; 1 to 9 items each."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 10, USERS)
    user = np.repeat(np.arange(USERS), sizes)
    item = (user % 4) + 4 * rng.integers(0, ITEMS // 4, len(user))
    events = pl.DataFrame({"user_id": user, "item_id": item}).unique()
    events = events.select(
        day=pl.lit(DAY),
        user_id=pl.format("user-{}", pl.col("user_id").cast(pl.String).str.zfill(3)),
        item_id=pl.format("item-{}", pl.col("item_id").cast(pl.String).str.zfill(3)),
        event_type=pl.lit("cart"),
    )
    # training needs an event before the held-out day; this user is the first row
    before = pl.DataFrame(
        {
            "day": [date(2026, 3, 1)],
            "user_id": ["early"],
            "item_id": ["item-000"],
            "event_type": ["view"],
        }
    )
    return build_interactions(pl.concat([events, before]), DAY, confidence, EvaluationSettings())


def folded(
    data: Interactions, factors: Factors, training: TrainingSettings, confidence: ConfidenceSettings
) -> FoldIn:
    eligible = np.arange(len(data.items)) % 5 > 0
    items = pl.DataFrame(
        {"item_id": data.items, "eligible": eligible, "popularity": popularity(data.full)}
    )
    return FoldIn(factors, items, confidence, training)


def scores(model: FoldIn, rows: np.ndarray) -> np.ndarray:
    """The score of every item for the owner of a basket of these items."""
    return model.item_factors @ model.user_factors(rows)[0]


@pytest.mark.parametrize("factors", [3, 16])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_owner_of_a_basket_scores_items_as_the_definition_of_als_says(
    factors: int, exponent: float
) -> None:
    data, training = (
        shop(CARTS),
        TrainingSettings(factors=factors, solver="cpu", regularization_exponent=exponent),
    )
    model = fit(data.full, training, iterations=4)
    fold_in = folded(data, model, training, CARTS)
    y, weights = model.item.astype(np.float64), row_regularization(data.full, training)[0]

    for user in range(1, len(data.users)):
        row = data.full[user]
        mine, c = y[row.indices], row.data.astype(np.float64)
        left = y.T @ y + weights[user] * np.eye(factors) + mine.T @ ((c - 1)[:, None] * mine)
        expected = y @ np.linalg.solve(left, mine.T @ c)
        assert scores(fold_in, row.indices) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("solver", ["cpu", "implicit"])
def test_a_training_users_own_basket_gives_what_the_training_gave(solver: Any) -> None:
    data = shop(CARTS)
    training = TrainingSettings(
        factors=8, solver=solver, regularization_exponent=0 if solver == "implicit" else 1
    )
    trained = fit(data.full, training, iterations=200)
    model = folded(data, trained, training, CARTS)
    ids, _ = top_n(
        trained.user, trained.item, 5, seen=data.full, eligible=np.arange(len(data.items)) % 5 > 0
    )

    for user in range(1, len(data.users)):
        basket = data.items.gather(data.full[user].indices).to_list()
        assert scores(model, data.full[user].indices) == pytest.approx(
            trained.item @ trained.user[user], abs=0.01
        )
        assert model.recommend(basket, 5) == data.items.gather(ids[user]).to_list()


@pytest.mark.parametrize(
    "confidence",
    [
        CARTS,
        ConfidenceSettings(
            window_days=30, weights={"view": 1, "cart": 7}, half_life_days=None, alpha=2
        ),
        ConfidenceSettings(window_days=30, bm25={"k1": 1.2, "b": 0}, alpha=3),
    ],
)
def test_a_basket_item_weighs_what_the_matrix_gives_to_a_cart_of_the_day(
    confidence: ConfidenceSettings,
) -> None:
    data, training = shop(confidence), TrainingSettings(factors=4)
    zeros = Factors(
        np.ones((len(data.users), 4), np.float32), np.ones((len(data.items), 4), np.float32)
    )
    model = folded(data, zeros, training, confidence)

    for user in range(1, len(data.users)):
        weighed = data.full[user].data
        assert model._basket_confidence(len(weighed)) == pytest.approx(weighed, rel=1e-6)


def test_without_a_weight_for_carts_the_heaviest_event_counts() -> None:
    data = shop(CARTS)
    factors = Factors(
        np.ones((len(data.users), 2), np.float32), np.ones((len(data.items), 2), np.float32)
    )
    of = {
        name: folded(
            data, factors, TrainingSettings(factors=2), ConfidenceSettings(weights=weights)
        )._basket_confidence(2)
        for name, weights in {
            "heaviest": {"view": 1, "purchase": 5},
            "cart": {"view": 1, "cart": 5, "purchase": 6},
        }.items()
    }

    assert (of["heaviest"] == of["cart"]).all()


def test_unknown_and_repeated_items_change_nothing() -> None:
    data, training = shop(CARTS), TrainingSettings(factors=4, solver="cpu")
    model = folded(data, fit(data.full, training, iterations=3), training, CARTS)

    listed = model.recommend(["item-002", "item-006"], 10)
    assert listed == model.recommend(
        ["item-006", "", "item-002", "item-006", "\x00", "\ud800", "item-999"], 10
    )


def test_a_basket_without_a_known_item_gets_no_list() -> None:
    data, training = shop(CARTS), TrainingSettings(factors=4, solver="cpu")
    model = folded(data, fit(data.full, training, iterations=3), training, CARTS)

    assert model.recommend([], 10) is None
    assert model.recommend(["item-999"], 10) is None


def test_an_item_that_was_never_trained_is_unknown() -> None:
    data, training = shop(CARTS), TrainingSettings(factors=4, solver="cpu")
    trained = fit(data.full, training, iterations=3)
    trained.item[7] = 0

    assert folded(data, trained, training, CARTS).recommend([data.items[7]], 10) is None


@settings(max_examples=50)
@given(rows=st.sets(st.integers(0, 199), min_size=1, max_size=60), n=st.integers(1, 200))
def test_lists_are_the_best_eligible_items_outside_the_basket(rows: set[int], n: int) -> None:
    rng = np.random.default_rng(3)
    factors = Factors(
        rng.random((5, 6), dtype=np.float32), rng.integers(-2, 3, (200, 6)).astype(np.float32)
    )
    factors.item[:, 0] += 0.5  # none is all zeros
    eligible = rng.random(200) < 0.7
    frame = pl.DataFrame(
        {
            "item_id": [f"{row:03}" for row in range(200)],
            "eligible": eligible,
            "popularity": np.ones(200),
        }
    )
    model = FoldIn(factors, frame, CARTS, TrainingSettings(factors=6))

    listed = model.recommend([f"{row:03}" for row in rows], n)

    of_items = scores(model, np.array(sorted(rows), dtype=np.int32))
    candidates = sorted(
        set(np.flatnonzero(eligible).tolist()) - rows, key=lambda row: (-of_items[row], row)
    )
    assert listed == [f"{row:03}" for row in candidates[:n]]


def test_pinned_items_come_first_and_the_cap_holds() -> None:
    data, training = shop(CARTS), TrainingSettings(factors=4, solver="cpu")
    factors, ids = fit(data.full, training, iterations=3), data.items
    items = pl.DataFrame({"item_id": ids, "eligible": True, "popularity": popularity(data.full)})
    category = ids.str.slice(-1).replace({"7": None})
    cap = category_cap(category, pl.Series(["1", "new"]), 2)
    pinned = ["item-001", "item-new"]
    capped = FoldIn(factors, items, CARTS, training, pinned=pinned, cap=cap)
    free = FoldIn(factors, items, CARTS, training)

    listed = capped.recommend(["item-002"], 12) or []

    remaining, expected = (
        {"1": 1} | {str(digit): 2 for digit in (0, *range(2, 7), 8, 9)} | {"7": 99},
        [],
    )
    for item in free.recommend(["item-002"], len(ids)) or []:
        if item not in pinned and remaining[item[-1]] > 0:
            remaining[item[-1]] -= 1
            expected.append(item)
    assert listed == [*pinned, *expected[:10]]
    assert (capped.recommend(["item-002", "item-001"], 12) or [])[0] == "item-new"
    assert capped.recommend(["item-002"], 1) == ["item-001"]
    # no more than the cap allows
    assert len(capped.recommend(["item-002"], 40) or []) == min(40, 2 + len(expected))


def test_a_basket_of_more_items_than_factors_is_solved_too() -> None:
    data, training = shop(CARTS), TrainingSettings(factors=2, solver="cpu")
    model = folded(data, fit(sparse.csr_matrix(data.full), training, iterations=3), training, CARTS)

    assert len(model.recommend(data.items.to_list()[:20], 5) or []) == 5
