"""The job of a day: the model learns from all users but slow bots and shared ids."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_ops.errors import DataError
from recsys_ops.history import encoded
from recsys_ops.history.table import replace_days
from recsys_ops.ingest.catalogue import write_catalogue
from recsys_ops.models.spec import read_inputs, read_spec
from recsys_ops.operators.build_matrix import BuildMatrixOperator
from recsys_ops.settings import ListsSettings, Settings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage

DAY = date(2026, 3, 28)


def viewed(user: str, a_day: int, event_type: str = "view") -> pl.DataFrame:
    """A user's events: `a_day` on each of the 28 days up to `DAY`."""
    n = pl.int_range(28 * a_day, eager=True)
    day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    return pl.DataFrame({"n": n}).select(
        event_id=pl.format("{}-{}", pl.lit(user), "n"),
        user_id=pl.lit(user),
        item_id=pl.format("p{}", pl.col("n") % 50),
        event_type=pl.lit(event_type),
        event_time=pl.lit(day) + pl.duration(days=pl.col("n") // a_day),
        recorded_at=pl.lit(day) + pl.duration(days=pl.col("n") // a_day),
        quantity=pl.lit(1),
        value=pl.lit(None, pl.Float64),
    )


def test_slow_bots_and_shared_ids_are_left_out_with_their_reasons(
    settings: Settings,
) -> None:
    storage = Storage(settings.storage.root)
    people = [viewed(f"u{n}", 5, "cart") for n in range(80)]
    events = pl.concat([*people, viewed("robot", 20), viewed("0", 40, "purchase")])
    replace_days(storage, events, DAY - timedelta(days=27), DAY)
    put_catalogue(
        storage,
        pl.DataFrame(
            {
                "item_id": [f"p{n}" for n in range(50)],
                "category": "home",
                "status": "published",
                "stock": 1,
            }
        ),
    )

    figures = BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {})
    assert figures["users_left_out"] == {"slow_bot": 1, "pseudo_user": 1}
    assert figures["events_left_out"] == 28 * 60
    assert figures["events_superseded"] == read_spec(storage, DAY).data.superseded_rows == 0
    assert figures["users"] == 80
    quarantine = storage.read_parquet(paths.quarantine("build_matrix", DAY)).sort("user_id")
    assert quarantine.select("user_id", "reason", "value").rows() == [
        ("0", "pseudo_user", "8.7 % of the window's events"),
        ("robot", "slow_bot", "every_day steady"),
    ]
    users = read_inputs(storage, read_spec(storage, DAY)).interactions.users
    assert sorted(users) == sorted(f"u{n}" for n in range(80))


def test_event_ids_that_restart_every_day_are_said_to_be_the_cause(settings: Settings) -> None:
    storage = Storage(settings.storage.root)
    events = pl.concat([viewed(f"u{n}", 5, "cart") for n in range(80)])
    number = pl.int_range(pl.len()).over(pl.col("recorded_at").dt.date())
    restarting = events.with_columns(event_id=number.cast(pl.String), item_id=pl.lit("p1"))
    replace_days(storage, restarting, DAY - timedelta(days=27), DAY)
    put_catalogue(
        storage,
        pl.DataFrame({"item_id": ["p1"], "category": "home", "status": "published", "stock": 1}),
    )
    with pytest.raises(DataError, match=r"event_id repeats across days: 400 of 400 rows of 2026"):
        BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {})


def test_encoded_days_give_the_same_matrix_as_the_history(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(settings.storage.root)
    people = [viewed(f"u{n}", 1 + n % 5, "cart") for n in range(30)]
    replace_days(storage, pl.concat([*people, viewed("robot", 20)]), DAY - timedelta(days=27), DAY)
    put_catalogue(
        storage,
        pl.DataFrame(
            {
                "item_id": [f"p{n}" for n in range(50)],
                "category": "home",
                "status": "published",
                "stock": 1,
            }
        ),
    )

    def build() -> tuple[dict[str, Any], dict[str, str]]:
        return BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {}), read_spec(
            storage, DAY
        ).inputs

    first = build()
    assert len(storage.list("encoded")) == 28
    with monkeypatch.context() as patch:
        patch.delattr(encoded, "read_events")
        assert build() == first


def did(user: str, items: str, event_type: str, ages: range = range(28)) -> pl.DataFrame:
    """A user's events with each of the items, at noon of the days of these ages."""
    noon = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
    rows = pl.DataFrame({"age": list(ages)}).join(
        pl.DataFrame({"item_id": items.split()}), how="cross"
    )
    return rows.select(
        event_id=pl.format("{}-{}-{}", pl.lit(user), pl.lit(event_type), "age"),
        user_id=pl.lit(user),
        item_id="item_id",
        event_type=pl.lit(event_type),
        event_time=pl.lit(noon) - pl.duration(days="age"),
        recorded_at=pl.lit(noon) - pl.duration(days="age"),
        quantity=pl.lit(1),
        value=pl.lit(None, pl.Float64),
    )


@pytest.fixture
def shop(settings: Settings) -> Storage:
    """Sixty people view p0 … p4 every day, and three of them buy them.

    A shared id buys p0 and p9. On `DAY`, nine people view p9 and p40.

    p3 is sold out, p40 … p48 are vouchers, p49 has no category.
    """
    storage = Storage(settings.storage.root)
    people = [did(f"u{n}", "p0 p1 p2 p3 p4", "view") for n in range(60)]
    buyers = [did(f"u{n}", "p0 p1 p2 p3 p4", "purchase") for n in range(3)]
    crowd = [
        did("0", "p0 p9", "purchase").with_columns(
            event_id=pl.format("{}-{}", "event_id", pl.lit(n))
        )
        for n in range(30)
    ]
    late = [
        did(f"u{n}", "p9 p40", "view", range(1)).with_columns(event_id=pl.lit(f"late-{n}"))
        for n in range(9)
    ]
    replace_days(
        storage, pl.concat([*people, *buyers, *crowd, *late]), DAY - timedelta(days=27), DAY
    )
    n = pl.int_range(50, eager=True)
    catalogue = pl.DataFrame({"item_id": pl.select(pl.format("p{}", n)).to_series()}).with_columns(
        category=pl.when(n == 49)
        .then(None)
        .when(n > 39)
        .then(pl.lit("vouchers"))
        .otherwise(pl.lit("home")),
        status=pl.lit("published"),
        stock=pl.when(n == 3).then(0).otherwise(1),
    )
    put_catalogue(storage, catalogue)
    return storage


def put_catalogue(storage: Storage, products: pl.DataFrame) -> None:
    write_catalogue(storage, DAY, products, 0, None)


def catalogue_of(storage: Storage) -> pl.DataFrame:
    return storage.read_parquet(current_generation(storage, paths.CATALOGUE, DAY))


def build(settings: Settings, **lists: Any) -> dict[str, Any]:
    changed = ListsSettings.model_validate({**settings.lists.model_dump(), **lists})
    settings = settings.model_copy(update={"lists": changed})
    return BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {})


def test_baskets_and_trending_are_without_slow_bots_and_unknown_items(
    shop: Storage, settings: Settings
) -> None:
    figures = build(settings)
    inputs = read_inputs(shop, read_spec(shop, DAY))
    items, list_inputs = inputs.interactions.items, inputs.list_inputs
    assert figures["users_left_out"] == {"pseudo_user": 1}
    assert figures["baskets"] == 3 * 28
    assert list_inputs.baskets.items.toarray().sum(axis=0).tolist() == [
        3 * 28 if name in {f"p{n}" for n in range(5)} else 0 for name in items
    ]
    half_life = settings.lists.bought_together.half_life_days
    ages = np.tile(np.arange(27, -1, -1), 3)
    np.testing.assert_allclose(list_inputs.baskets.weights, 0.5 ** (ages / half_life))
    assert list_inputs.trending["item_id"].to_list() == ["p40", "p9"]
    assert list_inputs.trending["score"].to_list() == [9.0, 9.0]
    assert figures["trending"] == 2


def test_items_of_an_excluded_category_are_recommended_nowhere(
    shop: Storage, settings: Settings
) -> None:
    build(settings, exclude_categories=["vouchers"], pinned_items=["p41", "p7", "p49"])
    inputs = read_inputs(shop, read_spec(shop, DAY))
    for_sale = dict(zip(inputs.interactions.items, inputs.eligible, strict=True))
    assert (for_sale["p40"], for_sale["p3"], for_sale["p9"]) == (False, False, True)
    assert inputs.list_inputs.trending["item_id"].to_list() == ["p9"]
    assert inputs.list_inputs.pinned["item_id"].to_list() == [
        "p7",
        "p49",
    ]  # p49 has no category, so none of the excluded ones
    put_catalogue(shop, catalogue_of(shop).drop_nulls("category"))
    with pytest.raises(DataError, match=r"lists\.exclude_categories"):
        build(settings, exclude_categories=["vouchers", "home"])


def test_pinned_items_that_are_not_for_sale_are_skipped_and_named(
    shop: Storage, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    figures = build(settings, pinned_items=["p33", "p3", "gone", "p0", "p33"])
    assert figures["pinned"] == 2
    assert (
        "lists.pinned_items: not shown, because the catalogue of 2026-03-28 does not have them "
        "for sale: p3, gone" in caplog.text
    )
    inputs = read_inputs(shop, read_spec(shop, DAY))
    assert inputs.list_inputs.pinned.rows() == [("p33", "home"), ("p0", "home")]
    assert "p33" not in inputs.interactions.items  # without an event


def test_an_item_of_the_catalogue_without_a_category_has_none(
    shop: Storage, settings: Settings
) -> None:
    put_catalogue(
        shop,
        catalogue_of(shop).filter(item_id="p1").with_columns(category=pl.lit(None, pl.String)),
    )
    build(settings)
    inputs = read_inputs(shop, read_spec(shop, DAY))
    assert inputs.list_inputs.category.to_list() == [None] * len(inputs.interactions.items)
    assert inputs.eligible.sum() == 1


def test_a_catalogue_whose_ids_are_written_differently_is_refused(
    shop: Storage, settings: Settings
) -> None:
    other = catalogue_of(shop).with_columns(pl.col("item_id") + ".0")
    put_catalogue(shop, other)
    with pytest.raises(DataError, match=r"ids such as 'p0', the catalogue such as 'p0\.0'"):
        build(settings)


def test_the_profile_knows_the_catalogue_and_the_days_that_were_read(
    shop: Storage, settings: Settings
) -> None:
    for age in range(1, 29):
        day = DAY - timedelta(days=age)
        shop.write_json(paths.report("extract_catalogue", day), {"items": 60, "eligible": 55})
        shop.write_json(paths.report("build_matrix", day), {"known_share": 0.99})
    settings = settings.model_copy(
        update={"lists": settings.lists.model_copy(update={"exclude_categories": ("vouchers",)})}
    )
    catalogue = catalogue_of(shop)
    put_catalogue(shop, catalogue.filter(pl.col("item_id") != "p0"))
    figures = BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {})
    profile = read_spec(shop, DAY).data
    assert profile is not None
    assert (profile.eligible.value, profile.eligible.usual) == (48, 55)
    assert profile.known_share.usual == 0.99
    assert profile.known_share.value == pytest.approx(figures["known_share"])
    assert profile.window_known_share == pytest.approx(0.8, abs=0.01)
    # p1 … p4 and p9; p0 is not in the catalogue, p40 is a voucher
    assert profile.known_items == 5
