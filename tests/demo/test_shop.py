"""The demo shop: what it sells, who comes, what they do."""

from datetime import UTC, date, datetime, timedelta

import implicit
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from recsys_ops.demo.events import COLUMNS, CORRUPTIONS, TRUTH, day_events
from recsys_ops.demo.shop import (
    DEMO,
    OFFICE_DOMAIN,
    OFFICE_NETWORK,
    TEST_ACCOUNTS,
    TINY,
    Dirt,
    Shop,
    ShopSize,
    products,
    users,
)
from recsys_ops.demo.truth import expected_step
from recsys_ops.ingest.steps import STEPS
from recsys_ops.settings import CleaningSettings

OPENS = date(2026, 5, 1)
DAY = date(2026, 5, 20)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return day_events(Shop(DEMO, OPENS), DAY)


def test_same_seed_gives_the_same_shop_whatever_was_made_before() -> None:
    shop = Shop(TINY, OPENS, seed=7)
    whole = {DAY + timedelta(days=n): day_events(shop, DAY + timedelta(days=n)) for n in range(3)}
    last = DAY + timedelta(days=2)
    again = day_events(Shop(TINY, OPENS, seed=7), last)
    assert again.write_csv() == whole[last].write_csv()
    assert not again.equals(day_events(Shop(TINY, OPENS, seed=8), last))


@pytest.mark.parametrize("size", [TINY, DEMO])
def test_a_day_has_about_as_many_rows_as_the_size_says(size: ShopSize) -> None:
    counts = [len(day_events(Shop(size, OPENS), OPENS + timedelta(days=n))) for n in range(7)]
    assert 0.8 * size.events_per_day < np.mean(counts) < 1.4 * size.events_per_day


def test_every_row_has_its_own_line_and_one_label(rows: pl.DataFrame) -> None:
    assert rows.columns == [*COLUMNS, *TRUTH]
    assert rows["line_id"].is_unique().all()
    shares = dict(rows.group_by("label").agg(pl.len() / len(rows)).iter_rows())
    assert set(shares) == {
        "human",
        "crawler",
        "scraper",
        "staff",
        "test_account",
        "corrupt",
        "duplicate",
        "future",
    }
    assert shares["human"] > 0.7
    assert set(rows.filter(label="corrupt")["detail"]) == set(CORRUPTIONS)
    assert rows.filter(pl.col("label") != "corrupt")["detail"].is_null().all()


def test_dirt_can_be_turned_off() -> None:
    clean = Dirt(crawlers=0, scrapers=0, corrupt=0, duplicate=0, future=0, late=0)
    rows = day_events(Shop(DEMO, OPENS, dirt=clean), DAY)
    assert set(rows["label"]) == {"human", "staff", "test_account"}
    assert set(rows["visible_on"]) == {DAY}


def test_rows_are_recorded_on_their_day_and_seen_up_to_two_days_later(
    rows: pl.DataFrame,
) -> None:
    assert (rows["recorded_at"].dt.date() == DAY).all()
    assert rows["recorded_at"].is_sorted()
    late = rows.filter(pl.col("visible_on") != DAY)
    assert set(late["visible_on"]) == {DAY + timedelta(days=1), DAY + timedelta(days=2)}
    assert set(late["label"]) == {"human"}


def test_an_event_and_an_item_come_twice_only_as_a_labelled_duplicate(rows: pl.DataFrame) -> None:
    item = pl.coalesce("product_id", "sku")
    assert (
        not rows.filter(pl.col("label") != "duplicate", item.is_not_null())
        .select("event_id", item)
        .is_duplicated()
        .any()
    )
    content = ("event_id", item, "event_time", "quantity", "price")
    doubled, kept = (
        rows.filter(pl.col("label") == label).select(content) for label in ("duplicate", "human")
    )
    assert (
        len(doubled.join(kept, on=doubled.columns, nulls_equal=True, how="semi"))
        == len(doubled)
        > 0
    )


def test_baskets_hold_several_products_that_were_looked_at_before(rows: pl.DataFrame) -> None:
    people = rows.filter(pl.col("label") == "human").select(
        "event_id",
        pl.coalesce("user_id", "customer_ref").alias("user"),
        pl.coalesce("product_id", "sku").alias("item"),
        pl.col("action").str.to_lowercase(),
    )
    bought, seen = people.filter(action="purchase"), people.filter(action="view")
    assert bought.group_by("event_id").len()["len"].max() >= 3
    assert len(bought.join(seen, on=["user", "item"], how="semi")) / len(bought) > 0.95


def test_shop_grows_every_day_and_keeps_what_it_had() -> None:
    shop, later = Shop(TINY, OPENS), OPENS + timedelta(days=30)
    for table, key in ((users, "user_id"), (products, "product_id")):
        first, last = table(shop, OPENS), table(shop, later)
        assert len(first) < len(table(shop, OPENS + timedelta(days=1))) < len(last)
        assert first[key].equals(last[key].head(len(first)))
    assert users(shop, OPENS).equals(users(shop, later).head(TINY.users))
    assert users(shop, later)["created_at"].max() == datetime(2026, 5, 31, 0, 30, tzinfo=UTC)


def test_catalogue_is_readable_and_not_all_of_it_can_be_sold() -> None:
    catalogue = products(Shop(DEMO, OPENS), DAY)
    assert catalogue["title"].is_unique().all()
    assert catalogue["title"][0] == "Black linen shirt"
    assert catalogue["category"].n_unique() == 12
    assert set(catalogue["status"]) == {"published", "draft", "archived"}
    assert (catalogue.filter(status="published")["stock"] == 0).any()


def test_withdrawn_products_have_a_past_but_no_present() -> None:
    shop = Shop(DEMO, OPENS)
    item = pl.coalesce("product_id", "sku").alias("product_id")
    gone = products(shop, DAY).filter(pl.col("status") != "published")
    assert len(gone) > 5
    on_opening, today = (
        day_events(shop, day).filter(label="human").select(item) for day in (OPENS, DAY)
    )
    assert len(on_opening.join(gone, on="product_id", how="semi")) > 0
    assert len(today.join(gone, on="product_id", how="semi")) == 0


def test_tastes_are_there_to_be_learned() -> None:
    """ALS beats popularity on what people do on the next day and had not met before."""
    shop, days = Shop(ShopSize(users=1_000, items=300, events_per_day=4_000), OPENS), 14
    rows = pl.concat(
        day_events(shop, OPENS + timedelta(days=n))
        .filter(label="human")
        .select(
            pl.lit(n).alias("day"),
            pl.coalesce("user_id", "customer_ref").alias("user"),
            pl.coalesce("product_id", "sku").alias("item"),
            pl.col("action").str.to_lowercase(),
        )
        for n in range(days + 1)
    )
    user, item = (
        rows[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("user", "item")
    )
    shape = (user.max() + 1, item.max() + 1)
    past = (rows["day"] < days).to_numpy()
    liked = ~past & rows["action"].is_in(["add_to_cart", "cart", "purchase"]).to_numpy()
    seen = sp.csr_matrix((np.ones(past.sum(), np.float32), (user[past], item[past])), shape)
    new = (
        sp.csr_matrix((np.ones(liked.sum()), (user[liked], item[liked])), shape).toarray() > 0
    ) & (seen.toarray() == 0)

    confidence = seen.copy()
    confidence.data = 1 + 16 * np.log1p(confidence.data)
    with threadpool_limits(1, "blas"):
        model = implicit.als.AlternatingLeastSquares(
            factors=32, regularization=16, alpha=1, random_state=1, use_gpu=False
        )
        model.fit(confidence, show_progress=False)

    def hits(scores: np.ndarray) -> float:
        top = np.argsort(-np.where(seen.toarray() > 0, -np.inf, scores), axis=1, kind="stable")[
            :, :20
        ]
        return float(np.take_along_axis(new, top, axis=1).sum())

    popularity = np.broadcast_to(np.asarray(seen.sum(axis=0)), shape)
    assert hits(model.user_factors @ model.item_factors.T) > 1.3 * hits(popularity) > 0


PLANTED = {
    "align_schema",
    "fix_types",
    "deduplicate",
    "filter_crawlers",
    "filter_bots",
    "filter_staff",
    "kept",
}


def rows_with_step(shop: Shop, days: list[date]) -> pl.DataFrame:
    """The days' rows with the ``step`` that rejected each or ``kept``, and the ``expected`` one."""
    rows = pl.concat(day_events(shop, day) for day in days)
    accounts = users(shop, days[-1]).select("user_id", "email", "role")
    delivered = (
        rows.drop(TRUTH)
        .with_columns(pl.coalesce("user_id", "customer_ref").alias("account"))
        .join(accounts, left_on="account", right_on="user_id", how="left", maintain_order="left")
        .drop("account")
        .with_columns(pl.col("line_id").cast(pl.String))
        .rename({"line_id": "row_id"})
    )
    staff = {
        "email_domains": [OFFICE_DOMAIN],
        "networks": [OFFICE_NETWORK],
        "test_account_pattern": TEST_ACCOUNTS,
    }
    settings = CleaningSettings.model_validate({"staff": staff})
    left, found = delivered.lazy(), []
    for name, step in STEPS.items():
        cleaned = step.function(left, settings)
        left = cleaned.kept.collect().lazy()
        found.append(
            cleaned.rejected.select(
                pl.col("row_id").cast(pl.Int64).alias("line_id"), pl.lit(name).alias("step")
            )
        )
    found.append(
        left.select(pl.col("row_id").cast(pl.Int64).alias("line_id"), pl.lit("kept").alias("step"))
    )
    return rows.join(pl.concat(found).collect(), on="line_id", validate="1:1").with_columns(
        expected=expected_step(pl.col("label"), pl.col("detail"))
    )


def test_each_cleaning_step_finds_what_was_planted_for_it(rows: pl.DataFrame) -> None:
    found = rows_with_step(Shop(DEMO, OPENS), [DAY])
    right = found.group_by("expected").agg(
        (pl.col("step") == pl.col("expected")).mean().alias("share")
    )
    assert len(found) == len(rows)
    assert set(right["expected"]) == PLANTED
    assert right["share"].min() > 0.97, right


@pytest.mark.parametrize("seed", [101, 102, 103])
def test_scrapers_are_found_and_customers_spared_in_unseen_shops(
    seed: int,
) -> None:
    found = rows_with_step(Shop(DEMO, OPENS, seed), [OPENS + timedelta(days=n) for n in range(10)])
    user_day = (
        "label",
        pl.coalesce("user_id", "customer_ref"),
        pl.col("recorded_at").dt.date().alias("day"),
    )
    scrapers = found.filter(label="scraper").select(user_day).unique()
    rejected = found.filter(step="filter_bots").select(user_day).unique()
    right = rejected.filter(label="scraper").height
    assert scrapers.height >= 20
    assert right >= 0.99 * rejected.height
    assert right >= 0.9 * scrapers.height
