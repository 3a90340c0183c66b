"""The hold-out: which pairs each protocol keeps from training."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from support.interactions import CONFIDENCE, DAY, EVALUATION, cells, history

from recsys_ops.interactions.matrix import Interactions, build_interactions


@pytest.mark.parametrize(
    ("exclude_seen", "held_out"),
    [(True, {("ann", "pot")}), (False, {("ann", "cup"), ("ann", "pot")})],
)
def test_holdout_is_what_was_bought_or_put_in_the_cart_that_day(
    exclude_seen: bool, held_out: set[tuple[str, str]]
):
    events = history(
        (5, "ann", "cup", "view"),
        (0, "ann", "cup", "purchase"),
        (0, "ann", "pot", "cart"),
        (0, "ann", "pot", "purchase"),
        (0, "ann", "lid", "view"),
    )
    built = build_interactions(
        events, DAY, CONFIDENCE, EVALUATION.model_copy(update={"exclude_seen": exclude_seen})
    )
    assert built.holdout.dtype == bool
    assert set(cells(built.holdout, built)) == held_out
    assert all(cells(built.holdout, built).values())


def test_a_seen_item_is_not_held_out_even_if_it_was_not_learned():
    events = history(
        (3, "ann", "cup", "view"),
        (3, "ann", "pot", "view"),
        (3, "bob", "pot", "view"),
        (0, "ann", "cup", "purchase"),
    )
    built = build_interactions(
        events, DAY, CONFIDENCE.model_copy(update={"min_users_per_item": 2}), EVALUATION
    )
    assert built.holdout.nnz == 0


def held_out_by(protocol: str, events: pl.DataFrame, **settings: Any) -> Interactions:
    return build_interactions(
        events, DAY, CONFIDENCE, EVALUATION.model_copy(update={"protocol": protocol, **settings})
    )


def busy(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    types = rng.choice(["view", "cart", "purchase"], 3000)
    ages, users, items = (
        rng.integers(0, 30, 3000),
        rng.integers(0, 60, 3000),
        rng.integers(0, 40, 3000),
    )
    rows = [
        (int(age), f"u{user:02}", f"i{item:02}", str(event_type))
        for age, user, item, event_type in zip(ages, users, items, types, strict=True)
    ]
    return history(*rows, (3, "once", "i00", "purchase"), (3, "u00", "rare", "purchase"))


@pytest.mark.parametrize("protocol", ["random", "leave_last_out"])
def test_masked_pairs_were_liked_and_can_be_recommended(protocol: str):
    events = busy(1)
    built = held_out_by(protocol, events)
    train, full, held = (
        set(cells(matrix, built)) for matrix in (built.train, built.full, built.holdout)
    )
    liked = set(
        events.filter(pl.col("event_type") != "view")
        .select("user_id", "item_id")
        .unique()
        .iter_rows()
    )
    assert train | held == full
    assert not train & held
    assert held <= liked
    assert {user for user, _ in held} <= {user for user, _ in train}
    assert {item for _, item in held} <= {item for _, item in train}
    assert {("once", "i00"), ("u00", "rare")} <= train
    assert cells(built.full, built) == cells(
        build_interactions(events, DAY, CONFIDENCE, EVALUATION).full, built
    )


@pytest.mark.parametrize("protocol", ["random", "leave_last_out"])
def test_masking_does_not_depend_on_the_order_of_the_rows(protocol: str):
    one, other = (
        held_out_by(protocol, e)
        for e in (busy(2), busy(2).sample(fraction=1.0, shuffle=True, seed=1))
    )
    for name in ("train", "full", "holdout"):
        assert cells(getattr(one, name), one) == cells(getattr(other, name), other)


def test_random_masks_a_seeded_share_of_the_liked_pairs():
    events = busy(3)
    pairs = (
        events.filter(pl.col("event_type") != "view").select("user_id", "item_id").unique().height
    )
    first, again, fewer = (
        set(cells(built.holdout, built))
        for built in (
            held_out_by("random", events),
            held_out_by("random", events),
            held_out_by("random", events, random_share=0.05),
        )
    )
    assert first == again
    assert len(first) / pairs == pytest.approx(0.2, abs=0.03)
    assert len(fewer) / pairs == pytest.approx(0.05, abs=0.02)


def test_leave_last_out_masks_all_events_of_the_pair_liked_last():
    events = history(
        (9, "ann", "cup", "view"), (5, "ann", "pot", "cart"), (2, "ann", "cup", "purchase"),
        (2, "ann", "pan", "cart"), (1, "ann", "lid", "view"), (8, "bob", "cup", "purchase"),
        (7, "bob", "pan", "view"), (0, "bob", "pot", "purchase"), (3, "cid", "cup", "purchase"),
    )  # fmt: skip
    built = held_out_by("leave_last_out", events)
    assert set(cells(built.holdout, built)) == {("ann", "cup"), ("bob", "pot")}
    assert ("ann", "cup") not in cells(built.train, built)
    assert ("cid", "cup") in cells(built.train, built)


def test_masked_pairs_count_neither_for_the_minima_nor_as_bought():
    events = history(
        (5, "ann", "cup", "view"), (4, "ann", "pot", "view"), (3, "ann", "pan", "purchase"),
        (5, "bob", "cup", "view"), (4, "bob", "pan", "view"), (3, "bob", "pot", "purchase"),
        (5, "cid", "cup", "purchase"), (4, "cid", "pan", "purchase"), (3, "cid", "pot", "cart"),
    )  # fmt: skip
    evaluation = EVALUATION.model_copy(update={"protocol": "leave_last_out"})
    built = build_interactions(
        events, DAY, CONFIDENCE.model_copy(update={"buyers_only": True}), evaluation
    )
    assert {user for user, _ in cells(built.train, built)} == {"cid"}
    assert dict(zip(built.users, built.buyers, strict=True)) == {
        "ann": False,
        "bob": False,
        "cid": True,
    }
    assert cells(built.holdout, built) == {}
    built = build_interactions(
        events, DAY, CONFIDENCE.model_copy(update={"min_users_per_item": 2}), evaluation
    )
    assert set(cells(built.holdout, built)) == {("ann", "pan")}
