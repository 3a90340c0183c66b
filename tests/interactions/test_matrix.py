"""The user–item matrices: confidence, hold-out, and what must not change them."""

import math
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys_ops.errors import DataError
from recsys_ops.interactions.matrix import Interactions, build_interactions
from recsys_ops.interactions.window import first_window_day
from recsys_ops.settings import ConfidenceSettings, EvaluationSettings

DAY = date(2026, 3, 10)
CONFIDENCE = ConfidenceSettings(
    window_days=30, weights={"view": 1, "cart": 3, "purchase": 5}, half_life_days=10, alpha=16
)
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
    return {
        (built.users[int(u)], built.items[int(i)]): float(v)
        for u, i, v in zip(coo.row, coo.col, coo.data, strict=True)
    }


def test_confidence_sums_decayed_weights_of_repeats():
    built = build_interactions(
        history(
            (10, "ann", "cup", "view"), (10, "ann", "cup", "view"), (20, "ann", "cup", "purchase")
        ),
        DAY,
        CONFIDENCE,
        EVALUATION,
    )
    assert cells(built.train, built) == pytest.approx(
        {("ann", "cup"): 1 + 16 * np.log1p(1 * 0.5 + 1 * 0.5 + 5 * 0.25)}
    )
    assert built.train.dtype == built.full.dtype == np.float32


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


def test_an_event_type_without_weight_is_not_learned():
    built = build_interactions(
        history((1, "ann", "cup", "view"), (1, "bob", "pot", "refund")), DAY, CONFIDENCE, EVALUATION
    )
    assert cells(built.full, built).keys() == {("ann", "cup")}
    assert built.users.to_list() == ["ann"]


def test_the_oldest_event_still_counts_more_than_none():
    fast = CONFIDENCE.model_copy(update={"half_life_days": 0.5})
    built = build_interactions(
        history((29, "ann", "cup", "view"), (1, "ann", "pot", "view")), DAY, fast, EVALUATION
    )
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


def weighed(
    events: pl.DataFrame, side: str = "train", **settings: Any
) -> dict[tuple[str, str], float]:
    built = build_interactions(
        events, DAY, ConfidenceSettings(**{**CONFIDENCE.model_dump(), **settings}), EVALUATION
    )
    return cells(getattr(built, side), built)


def test_without_a_half_life_an_old_event_counts_as_much_as_a_new_one():
    events = history((1, "ann", "cup", "view"), (29, "bob", "cup", "view"))
    assert weighed(events, half_life_days=None) == pytest.approx(
        dict.fromkeys([("ann", "cup"), ("bob", "cup")], 1 + 16 * np.log(2))
    )


def test_repeats_of_one_type_count_less_and_less_from_the_newest_on():
    events = history(
        (20, "ann", "cup", "view"), (10, "ann", "cup", "view"), (10, "ann", "cup", "view"),
        (10, "ann", "cup", "cart"), (20, "ann", "pot", "view"), (10, "bob", "cup", "view"),
    )  # fmt: skip
    views = 0.5 * (1 + 0.8) + 0.25 * 0.8**2
    assert weighed(events, repeat_decay=0.8) == pytest.approx(
        {
            ("ann", "cup"): 1 + 16 * np.log1p(views + 0.5 * 3),
            ("ann", "pot"): 1 + 16 * np.log1p(0.25),
            ("bob", "cup"): 1 + 16 * np.log1p(0.5),
        }
    )


def test_the_run_s_day_makes_older_repeats_count_less_in_full_only():
    events = history((10, "ann", "cup", "view"), (0, "ann", "cup", "view"))
    assert weighed(events, "train", repeat_decay=0.8) == pytest.approx(
        {("ann", "cup"): 1 + 16 * np.log1p(0.5)}
    )
    assert weighed(events, "full", repeat_decay=0.8) == pytest.approx(
        {("ann", "cup"): 1 + 16 * np.log1p(1 + 0.8 * 0.5)}
    )


def test_a_repeat_of_long_ago_still_counts_more_than_none():
    built = build_interactions(
        history(*[(9, "ann", "cup", "view")] * 200),
        DAY,
        CONFIDENCE.model_copy(update={"repeat_decay": 0.01, "half_life_days": 0.2}),
        EVALUATION,
    )
    assert (built.train.data > 1).all()


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
    assert set(weighed(SPARSE, min_items_per_user=2, min_users_per_item=3)) == {
        ("ann", "cup"),
        ("bob", "cup"),
    }


def test_buyers_only_takes_buyers_of_the_run_s_day_in_full_only():
    assert {user for user, _ in weighed(SPARSE, buyers_only=True)} == {"bob"}
    assert {user for user, _ in weighed(SPARSE, "full", buyers_only=True)} == {"bob", "cid"}


def test_buyers_count_even_if_a_purchase_has_no_weight():
    assert {user for user, _ in weighed(SPARSE, buyers_only=True, weights={"view": 1})} == {"bob"}


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


def test_settings_that_leave_no_user_are_named_in_the_error():
    with pytest.raises(
        DataError,
        match=r"5 pairs.*buyers_only, min_items_per_user and min_users_per_item: lower them",
    ):
        build_interactions(
            SPARSE, DAY, CONFIDENCE.model_copy(update={"min_items_per_user": 9}), EVALUATION
        )


def test_bm25_saturates_repeats_and_damps_popular_items_and_busy_users():
    settings = {"bm25": {"k1": 1.2, "b": 0.3}, "half_life_days": None}
    events = history(
        (3, "ann", "cup", "view"), (3, "ann", "cup", "view"), (3, "ann", "pot", "view"),
        (3, "bob", "cup", "view"), (3, "bob", "pan", "cart"), (3, "cid", "lid", "view"),
        (0, "cid", "new", "view"), (0, "eve", "cup", "view"),
    )  # fmt: skip
    lengths = {"cup": 3, "pot": 1, "pan": 3, "lid": 1}
    expected = {}
    for user, item, weight, items_of_user in [
        ("ann", "cup", 2, 2), ("ann", "pot", 1, 2), ("bob", "cup", 1, 2), ("bob", "pan", 3, 2),
        ("cid", "lid", 1, 1),
    ]:  # fmt: skip
        norm = 0.7 + 0.3 * lengths[item] / 2
        score = weight * 2.2 / (1.2 * norm + weight) * (math.log(4) - math.log1p(items_of_user))
        expected[user, item] = 1 + 16 * score
    assert weighed(events, **settings) == pytest.approx(expected)


def test_bm25_never_makes_an_event_count_less_than_none():
    events = history(
        (3, "ann", "cup", "view"), (3, "ann", "pot", "view"), (3, "bob", "pot", "view")
    )
    assert all(value > 1 for value in weighed(events, bm25={"k1": 1.2, "b": 0.3}).values())


def test_the_held_out_day_changes_nothing_that_is_trained_on():
    settings = {
        "bm25": {"k1": 1.2, "b": 0.3},
        "repeat_decay": 0.8,
        "min_items_per_user": 2,
        "buyers_only": True,
    }
    before = SPARSE.filter(pl.col("day") < DAY)
    assert weighed(SPARSE, **settings) == weighed(before, **settings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"repeat_decay": 0}, "greater than 0"),
        ({"repeat_decay": 1.1}, "less than or equal to 1"),
        ({"half_life_days": 0}, "greater than 0"),
        ({"bm25": {"k1": 0, "b": 0.3}}, "greater than 0"),
        ({"bm25": {"k1": 1, "b": 1.3}}, "less than or equal to 1"),
        ({"weights": {}}, "at least 1"),
        ({"min_users_per_item": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        ConfidenceSettings(**values)


def by_hand(
    rows: list[tuple[int, str, str, str]], confidence: ConfidenceSettings
) -> dict[tuple[str, str], float]:
    """The confidences of the rows, written with dictionaries."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    nth: Counter[tuple[str, str, str]] = Counter()
    for age, user, item, kind in sorted(rows):
        if kind in confidence.weights:
            decay = 0.5 ** (age / confidence.half_life_days) if confidence.half_life_days else 1
            sums[user, item] += (
                confidence.weights[kind] * decay * confidence.repeat_decay ** nth[user, item, kind]
            )
            nth[user, item, kind] += 1
    if confidence.buyers_only:
        sums = {
            pair: total
            for pair, total in sums.items()
            if any(r[1] == pair[0] and r[3] == "purchase" for r in rows)
        }
    of_user, of_item = Counter(user for user, _ in sums), Counter(item for _, item in sums)
    sums = {
        (user, item): total
        for (user, item), total in sums.items()
        if of_user[user] >= confidence.min_items_per_user
        and of_item[item] >= confidence.min_users_per_item
    }
    if not confidence.bm25:
        return {pair: 1 + confidence.alpha * math.log1p(total) for pair, total in sums.items()}
    of_user, length = Counter(user for user, _ in sums), Counter()
    for (_, item), total in sums.items():
        length[item] += total
    k1, b = confidence.bm25.k1, confidence.bm25.b
    confidences = {}
    for (user, item), total in sums.items():
        norm = 1 - b + b * length[item] / (sum(length.values()) / len(length))
        idf = math.log(len(length)) - math.log1p(of_user[user])
        confidences[user, item] = max(
            1, 1 + confidence.alpha * total * (k1 + 1) / (k1 * norm + total) * idf
        )
    return confidences


@examples(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 29),
            st.sampled_from("abcdef"),
            st.sampled_from("uvwxyz"),
            st.sampled_from(["view", "cart", "purchase"]),
        ),
        max_size=60,
    ),
    options=st.fixed_dictionaries(
        {
            "window_days": st.sampled_from([30, 100, 200, 400]),
            "half_life_days": st.sampled_from([None, 3.0, 40.0]),
            "repeat_decay": st.sampled_from([1, 0.8, 0.3]),
            "bm25": st.sampled_from([None, {"k1": 1.2, "b": 0.3}]),
            "weights": st.sampled_from(
                [{"view": 1, "cart": 3, "purchase": 5}, {"view": 0.1, "purchase": 1}]
            ),
            "min_items_per_user": st.integers(1, 3),
            "min_users_per_item": st.integers(1, 3),
            "buyers_only": st.booleans(),
        }
    ),
    as_codes=st.booleans(),
)
def test_matrices_are_those_made_by_hand(
    rows: list[tuple[int, str, str, str]], options: dict[str, Any], as_codes: bool
):
    confidence = ConfidenceSettings(alpha=2, **options)
    before = [row for row in rows if row[0] > 0]
    train, full = by_hand(before, confidence), by_hand(rows, confidence)
    if not train:
        return
    events = history(*rows)
    if as_codes:
        events = events.with_columns(
            pl.col(name).cast(pl.Enum(events[name].unique().sort()))
            for name in ("user_id", "item_id")
        )
    built = build_interactions(events, DAY, confidence, EVALUATION)
    assert cells(built.train, built) == pytest.approx(train, rel=1e-5)
    assert cells(built.full, built) == pytest.approx(full, rel=1e-5)
    liked = {(user, item) for age, user, item, kind in rows if age == 0 and kind != "view"}
    seen = {(user, item) for age, user, item, kind in before if kind in confidence.weights}
    assert set(cells(built.holdout, built)) == liked - seen
    stored = set(full) | (liked - seen)
    assert built.users.to_list() == sorted({user for user, _ in stored})
    assert built.items.to_list() == sorted({item for _, item in stored})


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
