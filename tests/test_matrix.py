"""The interaction matrices: confidence, the held-out day, and what must not matter."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recsys_ops.errors import DataError
from recsys_ops.matrix import Interactions, build, window_start
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings

DAY = date(2026, 3, 10)
CONFIDENCE = ConfidenceSettings(window_days=30, weights={"view": 1, "cart": 3, "purchase": 5}, half_life_days=10, alpha=16)
EVALUATION = EvaluationSettings(events=("purchase", "cart"), exclude_seen=True)


def history(*rows: tuple[int, str, str, str]) -> pl.DataFrame:
    """Rows of (days before DAY, user, item, event type)."""
    ages, users, items, types = zip(*rows, strict=True)
    days = [DAY - timedelta(days=age) for age in ages]
    return pl.DataFrame(
        {
            "day": days,
            "user_id": users,
            "item_id": items,
            "event_type": types,
            "event_time": [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in days],
            "quantity": [1] * len(rows),
            "value": [None] * len(rows),
        },
        schema_overrides={"value": pl.Float64},
    )


def cells(matrix, built: Interactions) -> dict[tuple[str, str], float]:
    coo = matrix.tocoo()
    return {(built.users[int(u)], built.items[int(i)]): float(v) for u, i, v in zip(coo.row, coo.col, coo.data, strict=True)}


def test_confidence_sums_decayed_weights_of_repeats():
    built = build(
        history((10, "ann", "cup", "view"), (10, "ann", "cup", "view"), (20, "ann", "cup", "purchase")),
        DAY,
        CONFIDENCE,
        EVALUATION,
    )
    assert cells(built.train, built) == pytest.approx({("ann", "cup"): 1 + 16 * np.log1p(1 * 0.5 + 1 * 0.5 + 5 * 0.25)})
    assert built.train.dtype == built.full.dtype == np.float32


def test_the_run_s_day_is_in_full_and_not_in_train():
    built = build(
        history((1, "ann", "cup", "view"), (0, "ann", "cup", "view"), (0, "bob", "pot", "view")), DAY, CONFIDENCE, EVALUATION
    )
    assert set(cells(built.train, built)) == {("ann", "cup")}
    assert set(cells(built.full, built)) == {("ann", "cup"), ("bob", "pot")}
    assert built.train.shape == built.full.shape == built.holdout.shape == (2, 2)


def test_days_after_the_run_s_day_and_before_the_window_are_left_out():
    events = history(
        (-1, "ann", "cup", "view"), (1, "ann", "pot", "view"), (29, "ann", "pan", "view"), (30, "ann", "lid", "view")
    )
    built = build(events, DAY, CONFIDENCE, EVALUATION)
    assert built.items.to_list() == ["pan", "pot"]
    assert window_start(DAY, CONFIDENCE) == DAY - timedelta(days=29)


@pytest.mark.parametrize(("exclude_seen", "held_out"), [(True, {("ann", "pot")}), (False, {("ann", "cup"), ("ann", "pot")})])
def test_holdout_is_what_was_bought_or_put_in_the_cart_that_day(exclude_seen: bool, held_out: set[tuple[str, str]]):
    events = history(
        (5, "ann", "cup", "view"),
        (0, "ann", "cup", "purchase"),
        (0, "ann", "pot", "cart"),
        (0, "ann", "pot", "purchase"),
        (0, "ann", "lid", "view"),
    )
    built = build(events, DAY, CONFIDENCE, EVALUATION.model_copy(update={"exclude_seen": exclude_seen}))
    assert built.holdout.dtype == bool
    assert set(cells(built.holdout, built)) == held_out
    assert all(cells(built.holdout, built).values())


def test_an_event_type_without_weight_teaches_nothing():
    built = build(history((1, "ann", "cup", "view"), (1, "bob", "pot", "refund")), DAY, CONFIDENCE, EVALUATION)
    assert cells(built.full, built).keys() == {("ann", "cup")}
    assert built.users.to_list() == ["ann"]


def test_the_oldest_event_still_counts_more_than_none():
    fast = CONFIDENCE.model_copy(update={"half_life_days": 0.5})
    built = build(history((29, "ann", "cup", "view"), (1, "ann", "pot", "view")), DAY, fast, EVALUATION)
    assert (built.train.data > 1).all()


def test_the_order_of_the_rows_does_not_change_a_byte():
    rng = np.random.default_rng(5)
    rows = [
        (int(age), f"u{user}", f"i{item}", str(kind))
        for age, user, item, kind in zip(
            rng.integers(0, 30, 4000),
            rng.integers(0, 40, 4000),
            rng.integers(0, 15, 4000),
            rng.choice(["view", "cart", "purchase"], 4000),
            strict=True,
        )
    ]
    events = history(*rows)
    one, other = (build(e, DAY, CONFIDENCE, EVALUATION) for e in (events, events.sample(fraction=1.0, shuffle=True, seed=1)))
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)
    for name in ("train", "full", "holdout"):
        for part in ("indptr", "indices", "data"):
            assert getattr(getattr(one, name), part).tobytes() == getattr(getattr(other, name), part).tobytes()


def test_ids_of_any_form_keep_their_own_row():
    ids = ["7", "07", "Ä", "a\x00b", " a", "A"]
    built = build(history(*[(1, user, "cup", "view") for user in ids]), DAY, CONFIDENCE, EVALUATION)
    assert built.users.to_list() == sorted(ids, key=str.encode)
    assert built.train.nnz == len(ids)


@pytest.mark.parametrize("events", [history((0, "ann", "cup", "purchase")), history((0, "ann", "cup", "purchase")).clear()])
def test_nothing_before_the_day_says_which_days_were_looked_at(events: pl.DataFrame):
    with pytest.raises(DataError, match=r"nothing to train on.*2026-02-09 … 2026-03-09.*recsys_ingest"):
        build(events, DAY, CONFIDENCE, EVALUATION)
