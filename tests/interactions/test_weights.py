"""How much an event counts: by type, age, repeats and BM25, also compared with plain Python."""

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError
from support.interactions import CONFIDENCE, DAY, EVALUATION, cells, confidences, history

from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.settings import ConfidenceSettings


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


def test_the_oldest_event_still_counts_more_than_none():
    fast = CONFIDENCE.model_copy(update={"half_life_days": 0.5})
    built = build_interactions(
        history((29, "ann", "cup", "view"), (1, "ann", "pot", "view")), DAY, fast, EVALUATION
    )
    assert (built.train.data > 1).all()


def test_without_a_half_life_an_old_event_counts_as_much_as_a_new_one():
    events = history((1, "ann", "cup", "view"), (29, "bob", "cup", "view"))
    assert confidences(events, half_life_days=None) == pytest.approx(
        dict.fromkeys([("ann", "cup"), ("bob", "cup")], 1 + 16 * np.log(2))
    )


def test_repeats_of_one_type_count_less_and_less_from_the_newest_on():
    events = history(
        (20, "ann", "cup", "view"), (10, "ann", "cup", "view"), (10, "ann", "cup", "view"),
        (10, "ann", "cup", "cart"), (20, "ann", "pot", "view"), (10, "bob", "cup", "view"),
    )  # fmt: skip
    views = 0.5 * (1 + 0.8) + 0.25 * 0.8**2
    assert confidences(events, repeat_decay=0.8) == pytest.approx(
        {
            ("ann", "cup"): 1 + 16 * np.log1p(views + 0.5 * 3),
            ("ann", "pot"): 1 + 16 * np.log1p(0.25),
            ("bob", "cup"): 1 + 16 * np.log1p(0.5),
        }
    )


def test_the_run_s_day_makes_older_repeats_count_less_in_full_only():
    events = history((10, "ann", "cup", "view"), (0, "ann", "cup", "view"))
    assert confidences(events, "train", repeat_decay=0.8) == pytest.approx(
        {("ann", "cup"): 1 + 16 * np.log1p(0.5)}
    )
    assert confidences(events, "full", repeat_decay=0.8) == pytest.approx(
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
    assert confidences(events, **settings) == pytest.approx(expected)


def test_bm25_never_makes_an_event_count_less_than_none():
    events = history(
        (3, "ann", "cup", "view"), (3, "ann", "pot", "view"), (3, "bob", "pot", "view")
    )
    assert all(value > 1 for value in confidences(events, bm25={"k1": 1.2, "b": 0.3}).values())


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


@examples(max_examples=150)
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
