"""The user–item matrices: which events, users and items they hold."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from support.interactions import CONFIDENCE, DAY, EVALUATION, cells, confidences, history

from recsys_ops.errors import DataError
from recsys_ops.interactions.encoded_window import first_window_day
from recsys_ops.interactions.matrix import build_interactions


def test_the_run_s_day_is_in_full_and_not_in_train():
    built = build_interactions(
        history((1, "ann", "cup", "view"), (0, "ann", "cup", "view"), (0, "bob", "pot", "view")),
        DAY,
        CONFIDENCE,
        EVALUATION,
    )
    assert set(cells(built.train, built)) == {("ann", "cup")}
    assert set(cells(built.full, built)) == {("ann", "cup"), ("bob", "pot")}
    assert built.train.shape == built.full.shape == built.holdout.shape == (2, 2)


def test_days_outside_the_window_are_left_out():
    events = history(
        (-1, "ann", "cup", "view"),
        (1, "ann", "pot", "view"),
        (29, "ann", "pan", "view"),
        (30, "ann", "lid", "view"),
    )
    built = build_interactions(events, DAY, CONFIDENCE, EVALUATION)
    assert built.items.to_list() == ["pan", "pot"]
    assert first_window_day(DAY, CONFIDENCE) == DAY - timedelta(days=29)


def test_an_event_type_without_weight_is_not_learned():
    built = build_interactions(
        history((1, "ann", "cup", "view"), (1, "bob", "pot", "refund")), DAY, CONFIDENCE, EVALUATION
    )
    assert cells(built.full, built).keys() == {("ann", "cup")}
    assert built.users.to_list() == ["ann"]


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
    one, other = (
        build_interactions(e, DAY, CONFIDENCE, EVALUATION)
        for e in (events, events.sample(fraction=1.0, shuffle=True, seed=1))
    )
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)
    for name in ("train", "full", "holdout"):
        for part in ("indptr", "indices", "data"):
            assert (
                getattr(getattr(one, name), part).tobytes()
                == getattr(getattr(other, name), part).tobytes()
            )


def test_ids_of_any_form_keep_their_own_row():
    ids = ["7", "07", "Ä", "a\x00b", " a", "A"]
    built = build_interactions(
        history(*[(1, user, "cup", "view") for user in ids]), DAY, CONFIDENCE, EVALUATION
    )
    assert built.users.to_list() == sorted(ids, key=str.encode)
    assert built.train.nnz == len(ids)


@pytest.mark.parametrize(
    "events",
    [history((0, "ann", "cup", "purchase")), history((0, "ann", "cup", "purchase")).clear()],
)
def test_no_event_before_the_day_names_the_days_that_were_read(events: pl.DataFrame):
    with pytest.raises(
        DataError, match=r"nothing to train on.*2026-02-09 … 2026-03-09.*recsys_ingest"
    ):
        build_interactions(events, DAY, CONFIDENCE, EVALUATION)


SPARSE = history(
    (3, "ann", "cup", "view"), (3, "ann", "cup", "view"), (3, "ann", "pot", "view"),
    (3, "bob", "cup", "view"), (3, "bob", "pan", "view"), (3, "bob", "pan", "purchase"),
    (3, "cid", "cup", "view"),
    (0, "cid", "pot", "purchase"), (0, "ann", "lid", "view"), (0, "dot", "cup", "cart"),
)  # fmt: skip


def test_a_user_with_too_few_items_is_not_learned_but_held_out():
    built = build_interactions(
        SPARSE, DAY, CONFIDENCE.model_copy(update={"min_items_per_user": 2}), EVALUATION
    )
    assert {user for user, _ in cells(built.train, built)} == {"ann", "bob"}
    assert {user for user, _ in cells(built.full, built)} == {"ann", "bob", "cid"}
    assert set(cells(built.holdout, built)) == {("cid", "pot"), ("dot", "cup")}


def test_an_item_with_too_few_users_has_no_column_unless_held_out():
    built = build_interactions(
        SPARSE, DAY, CONFIDENCE.model_copy(update={"min_users_per_item": 2}), EVALUATION
    )
    assert {item for _, item in cells(built.train, built)} == {"cup"}
    assert {item for _, item in cells(built.full, built)} == {"cup", "pot"}
    assert built.items.to_list() == ["cup", "pot"]


def test_both_minima_are_counted_before_users_are_left_out():
    assert set(confidences(SPARSE, min_items_per_user=2, min_users_per_item=3)) == {
        ("ann", "cup"),
        ("bob", "cup"),
    }


def test_buyers_only_takes_buyers_of_the_run_s_day_in_full_only():
    assert {user for user, _ in confidences(SPARSE, buyers_only=True)} == {"bob"}
    assert {user for user, _ in confidences(SPARSE, "full", buyers_only=True)} == {"bob", "cid"}


def test_buyers_count_even_if_a_purchase_has_no_weight():
    assert {user for user, _ in confidences(SPARSE, buyers_only=True, weights={"view": 1})} == {
        "bob"
    }


def test_settings_that_leave_no_user_are_named_in_the_error():
    with pytest.raises(
        DataError,
        match=r"5 pairs.*buyers_only, min_items_per_user and min_users_per_item: lower them",
    ):
        build_interactions(
            SPARSE, DAY, CONFIDENCE.model_copy(update={"min_items_per_user": 9}), EVALUATION
        )


def test_the_held_out_day_changes_nothing_that_is_trained_on():
    settings = {
        "bm25": {"k1": 1.2, "b": 0.3},
        "repeat_decay": 0.8,
        "min_items_per_user": 2,
        "buyers_only": True,
    }
    before = SPARSE.filter(pl.col("day") < DAY)
    assert confidences(SPARSE, **settings) == confidences(before, **settings)
