"""Bought together, on baskets typed in."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from recsys_ops.lists.bought_together import bought_together, build_baskets
from recsys_ops.settings import BoughtTogetherSettings

DAY = date(2026, 3, 10)
ITEMS = pl.Series(["cup", "lid", "pan", "pot"])


def bought(*lines: tuple[str, str, float], event_type: str = "purchase") -> pl.DataFrame:
    """Events of (user, item, hours before the end of `DAY`)."""
    users, items, hours = zip(*lines, strict=True)
    end = (DAY - date(1970, 1, 1)).days * 86400 + 86399
    return pl.DataFrame(
        {
            "day": [DAY - timedelta(days=int(hour // 24)) for hour in hours],
            "user_id": users,
            "item_id": items,
            "event_type": event_type,
            "second": [end - int(hour * 3600) for hour in hours],
        }
    )


def basket(user: str, items: str, hours: float = 1) -> list[tuple[str, str, float]]:
    return [(user, item, hours) for item in items.split()]


def listed(
    lines: pl.DataFrame,
    items: pl.Series = ITEMS,
    eligible: np.ndarray | None = None,
    **settings: object,
) -> dict[str, dict[str, float]]:
    basket_settings = BoughtTogetherSettings.model_validate(
        {"min_support": 1, "half_life_days": None, **settings}
    )
    ids, scores = bought_together(
        build_baskets(lines, items, DAY, basket_settings),
        3,
        basket_settings,
        eligible=np.ones(len(items), bool) if eligible is None else eligible,
    )
    return {
        items[row]: {
            items[int(item)]: round(float(score), 4)
            for item, score in zip(ids[row], scores[row], strict=True)
            if item >= 0
        }
        for row in range(len(items))
        if ids[row, 0] >= 0
    }


def test_most_shared_baskets_come_first_and_equals_by_item() -> None:
    events = bought(*basket("a", "cup lid pan"), *basket("b", "cup lid"), *basket("c", "cup pot"))
    assert listed(events) == {
        "cup": {"lid": 2, "pan": 1, "pot": 1},
        "lid": {"cup": 2, "pan": 1},
        "pan": {"cup": 1, "lid": 1},
        "pot": {"cup": 1},
    }
    assert list(listed(events)["cup"]) == ["lid", "pan", "pot"]


def test_a_pair_of_fewer_baskets_than_the_support_is_left_out() -> None:
    events = bought(*basket("a", "cup lid pan"), *basket("b", "cup lid"), *basket("c", "cup pot"))
    assert listed(events, min_support=2) == {"cup": {"lid": 2}, "lid": {"cup": 2}}
    assert listed(events, min_support=3) == {}


def test_an_old_basket_weighs_less_but_supports_as_much() -> None:
    events = bought(
        *basket("a", "cup lid"),
        *basket("b", "cup lid", 24 * 30 + 1),
        *basket("c", "cup pan", 24 * 60 + 1),
    )
    assert listed(events, half_life_days=30)["cup"] == {"lid": 1.5, "pan": 0.25}
    assert listed(events, half_life_days=30, min_support=2)["cup"] == {"lid": 1.5}
    # even the oldest basket weighs more than none
    assert listed(events, half_life_days=0.01)["cup"].keys() == {"lid", "pan"}


def test_lift_puts_unexpected_pairs_before_frequent_ones() -> None:
    lines = [
        *basket("a", "cup lid"),
        *basket("b", "cup lid"),
        *basket("c", "cup pan"),
        *basket("d", "lid pot"),
    ]
    # of 4 baskets cup is in 3, lid in 3, pan and pot in 1
    assert listed(bought(*lines), rank_by="lift")["cup"] == {
        "pan": round(1 * 4 / (3 * 1), 4),
        "lid": round(2 * 4 / (3 * 3), 4),
    }
    assert list(listed(bought(*lines), rank_by="weight")["cup"]) == ["lid", "pan"]
    older = bought(*lines[:4], *basket("c", "cup pan", 31), *basket("d", "lid pot", 31))
    weighed = listed(older, rank_by="lift", half_life_days=1)["cup"]  # weights 1, 1, ½, ½
    assert weighed == {"pan": round(0.5 * 3 / (2.5 * 0.5), 4), "lid": round(2 * 3 / (2.5 * 2.5), 4)}


def test_a_pause_ends_a_basket_and_midnight_does_not() -> None:
    assert listed(bought(("a", "cup", 12.9), ("a", "lid", 1))) == {
        "cup": {"lid": 1},
        "lid": {"cup": 1},
    }
    assert listed(bought(("a", "cup", 13), ("a", "lid", 1))) == {}
    chain = bought(("a", "cup", 30), ("a", "lid", 20), ("a", "pan", 10))
    assert listed(chain)["cup"] == {"lid": 1, "pan": 1}
    assert listed(chain, session_gap_hours=10) == {}
    assert listed(bought(("a", "cup", 1), ("b", "lid", 1))) == {}


def test_a_basket_is_as_old_as_its_last_event() -> None:
    assert listed(bought(("a", "cup", 30), ("a", "lid", 23)), half_life_days=1)["cup"] == {"lid": 1}


def test_only_the_events_that_count_make_baskets() -> None:
    events = pl.concat([bought(("a", "cup", 1)), bought(("a", "lid", 1), event_type="cart")])
    assert listed(events) == {}
    assert listed(events, events=["purchase", "cart"]) == {"cup": {"lid": 1}, "lid": {"cup": 1}}


def test_large_baskets_and_those_of_one_item_are_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("recsys_ops.lists.bought_together.MAX_BASKET_ITEMS", 2)
    events = bought(
        *basket("a", "cup lid pan"), *basket("b", "cup lid lid"), *basket("c", "cup cup")
    )
    assert listed(events) == {"cup": {"lid": 1}, "lid": {"cup": 1}}
    assert "baskets=1 of 8 events; 1 were left out for more than 2 items" in caplog.text
    # the size counts all items of the basket, also those that the model does not have
    assert listed(events, items=ITEMS[:2]) == {"cup": {"lid": 1}, "lid": {"cup": 1}}


def test_an_item_that_is_not_eligible_is_in_no_list_but_has_one() -> None:
    events = bought(*basket("a", "cup lid pan"))
    assert listed(events, eligible=np.array([True, False, True, True])) == {
        "cup": {"pan": 1},
        "lid": {"cup": 1, "pan": 1},
        "pan": {"cup": 1},
    }
    assert listed(events, eligible=np.zeros(4, bool)) == {}


def test_without_an_event_there_is_no_list() -> None:
    assert listed(bought(*basket("a", "cup lid"), event_type="view")) == {}


def many(n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return bought(
        *zip(
            [f"u{u}" for u in rng.integers(0, 60, n)],
            [f"i{i:02d}" for i in np.minimum(rng.geometric(0.05, n), 59)],
            rng.integers(0, 24 * 90, n) + 0.5,
            strict=True,
        )
    )


def test_the_order_of_the_rows_and_the_type_of_the_ids_change_no_bit() -> None:
    events, items, basket_settings = (
        many(3000, 1),
        pl.Series([f"i{n:02d}" for n in range(3, 60)]),
        BoughtTogetherSettings(),
    )
    one = build_baskets(events, items, DAY, basket_settings)
    encoded = events.with_columns(
        pl.col("user_id").cast(pl.Enum(events["user_id"].unique().sort())),
        pl.col("item_id").cast(pl.Enum(events["item_id"].unique().sort())),
        pl.col("event_type").cast(pl.Enum(["view", "purchase"])),
        pl.col("second").cast(pl.UInt32),
    )
    for rows in (events.sample(fraction=1, shuffle=True, seed=2), encoded):
        other = build_baskets(rows, items, DAY, basket_settings)
        assert one.weights.tobytes() == other.weights.tobytes()
        for part in ("indptr", "indices", "data"):
            assert getattr(one.items, part).tobytes() == getattr(other.items, part).tobytes()


@pytest.mark.parametrize("rank_by", ["weight", "lift"])
@pytest.mark.parametrize("pairs", [2**20, 50])
def test_blocks_of_items_give_what_counting_every_pair_gives(
    rank_by: str, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ops.lists.bought_together._PAIRS_AT_ONCE", pairs)
    items, eligible = pl.Series([f"i{n:02d}" for n in range(60)]), np.arange(60) % 4 > 0
    basket_settings = BoughtTogetherSettings.model_validate(
        {"min_support": 2, "rank_by": rank_by, "half_life_days": 30}
    )
    baskets = build_baskets(many(2000, 7), items, DAY, basket_settings)
    ids, scores = bought_together(baskets, 5, basket_settings, eligible=eligible)
    dense, weights = baskets.items.toarray().astype(float), baskets.weights
    support, weight = dense.T @ dense, dense.T @ (dense * weights[:, None])
    of_item = dense.T @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        score = (
            weight if rank_by == "weight" else weight * weights.sum() / np.outer(of_item, of_item)
        )
    allowed = (support >= 2) & eligible & ~np.eye(60, dtype=bool)
    score = np.where(allowed, score.astype(np.float32), -np.inf)
    best = np.argsort(-score, axis=1, kind="stable")[:, :5]
    expected = np.take_along_axis(score, best, axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert (ids >= 0).sum() > 100
    np.testing.assert_array_equal(np.isfinite(expected), ids >= 0)
    listed_scores = np.take_along_axis(score, np.maximum(ids, 0), axis=1)[ids >= 0]
    np.testing.assert_allclose(listed_scores, scores[ids >= 0], rtol=1e-6)
