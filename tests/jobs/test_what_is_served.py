"""The verdict on what a night would serve: wrong catalogues are refused, changes of a shop are not.

The tasks from `build_matrix` to `gate` run on a shop of 60 items, whose version of the day before
is live.
"""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support.jobs import DAY, history

from recsys_ops.errors import DataError
from recsys_ops.evaluation.gate import Verdict, decide
from recsys_ops.history.table import replace_days
from recsys_ops.jobs.build import build_day_job
from recsys_ops.models import files
from recsys_ops.models.spec import read_spec
from recsys_ops.models.version import evaluation_figures
from recsys_ops.settings import Settings, load_settings
from recsys_ops.source.catalogue import eligible_items, unmanaged_share
from recsys_ops.storage import paths
from recsys_ops.storage.generations import write_generation
from recsys_ops.storage.objects import Storage
from recsys_ops.storage.serialization import from_frame
from recsys_ops.worker.job import main

BEFORE = DAY - timedelta(days=1)
ITEMS = 60
LIVE_LISTS = {
    "some_lists", "list_counts", "popular_list", "full_lists", "lost_lists", "eligible",
    "unmanaged_share", "known_share", "window_known_share",
}  # fmt: skip

Change = Callable[[pl.DataFrame], pl.DataFrame]


def settings_with(**lists: Any) -> Settings:
    """The settings of a small shop, with these settings of the lists."""
    settings = load_settings()
    changed = {
        "confidence": {"window_days": 30},
        "training": {"factors": 8, "iterations": 8},
        "lists": {"top_n": 10, **lists},
        "gate": {"allow_first_deployment": True},
    }
    sections = {
        name: getattr(settings, name).model_copy(update=values) for name, values in changed.items()
    }
    return settings.model_copy(update=sections)


def catalogue() -> pl.DataFrame:
    """Sixty items in six categories, all of them for sale."""
    n = pl.int_range(ITEMS, eager=True)
    return pl.DataFrame({"n": n}).select(
        item_id=pl.format("item-{}", "n"),
        title=pl.format("Item {}", "n"),
        category=pl.format("category-{}", pl.col("n") % 6),
        price=pl.lit(9.5),
        stock=pl.lit(5, pl.Int64),
        status=pl.lit("published"),
    )


def night(storage: Storage, settings: Settings, day: date, products: pl.DataFrame) -> Verdict:
    """The tasks of a night, from the catalogue to the verdict."""
    write_generation(storage, paths.CATALOGUE, day, from_frame(products))
    report = {
        "eligible": eligible_items(products).height,
        "unmanaged_share": unmanaged_share(products),
    }
    storage.write_json(paths.report("extract_catalogue", day), report)
    storage.write_json(paths.report("build_matrix", day), build_day_job(storage, day, settings))
    assert main(storage.url(paths.job(day, files.SPEC))) == 0
    spec = read_spec(storage, day)
    figures = evaluation_figures(storage, spec)
    storage.write_json(paths.model(spec.version, files.METRICS), figures)
    return decide(figures, settings.gate)


def failed(verdict: Verdict) -> set[str]:
    """The rules about what would be served that have failed."""
    return {rule.name for rule in verdict.rules if not rule.passed} & LIVE_LISTS


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the shop, whose version of the day before is live."""
    folder = tmp_path_factory.mktemp("shop")
    storage = Storage(folder.as_uri())
    time = pl.col("day").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=12)
    events = (
        history(users=600, items=ITEMS, days=29)
        .with_row_index("n")
        .select(
            event_id=pl.format("e{}", "n"),
            user_id="user_id",
            item_id="item_id",
            event_type="event_type",
            event_time=time,
            recorded_at=time,
            quantity=pl.lit(1),
            value=pl.lit(None, pl.Float64),
        )
    )
    replace_days(storage, events, DAY - timedelta(days=28), DAY)
    verdict = night(storage, settings_with(), BEFORE, catalogue())
    assert failed(verdict) == set()
    version = read_spec(storage, BEFORE).version
    deployed = {"version": version, "day": str(BEFORE), "reason": "the first", "by": None}
    storage.write_json(paths.LIVE, {"deployments": [deployed], "blocked": {}, "pinned": []})
    return folder


@pytest.fixture
def shop(live: Path, tmp_path: Path) -> Storage:
    shutil.copytree(live, tmp_path / "shop")
    return Storage((tmp_path / "shop").as_uri())


def test_a_usual_catalogue_is_not_refused(shop: Storage) -> None:
    usual = catalogue().with_columns(
        stock=pl.when(pl.int_range(pl.len()) % 10 == 3).then(0).otherwise("stock")
    )
    assert failed(night(shop, settings_with(), DAY, usual)) == set()


n, stock = pl.int_range(pl.len()), pl.col("stock")


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        pytest.param(
            lambda of: of.with_columns(stock=pl.when(n < 3).then(stock).otherwise(0)),
            {"popular_list", "full_lists", "lost_lists", "eligible"},
            id="57 of 60 items sold out",
        ),
        pytest.param(
            lambda of: of.with_columns(
                status=pl.when(n % 2 == 0).then("status").otherwise(pl.lit("draft"))
            ),
            {"lost_lists", "eligible"},
            id="half of the catalogue unpublished",
        ),
        pytest.param(
            lambda of: of.with_columns(
                item_id=pl.when(pl.col("category") == "category-0")
                .then(pl.col("item_id") + "-new")
                .otherwise("item_id")
            ),
            {"known_share", "window_known_share"},
            id="a category's items renamed",
        ),
        pytest.param(
            lambda of: of.with_columns(stock=pl.when(n % 2 == 0).then(stock)),
            {"unmanaged_share"},
            id="no stock of half of the items",
        ),
        pytest.param(
            lambda of: of.with_columns(category=pl.lit(None, pl.String)),
            {"list_counts"},
            id="no categories",
        ),
        pytest.param(
            lambda of: of.head(20),
            {"lost_lists", "eligible", "known_share", "window_known_share"},
            id="the catalogue broke off",
        ),
    ],
)
def test_a_catalogue_that_is_wrong_is_refused(
    shop: Storage, change: Change, rules: set[str]
) -> None:
    assert rules <= failed(night(shop, settings_with(), DAY, change(catalogue())))


def test_ids_that_are_nowhere_the_same_end_the_night_before_the_training(shop: Storage) -> None:
    floats = catalogue().with_columns(pl.col("item_id") + ".0")
    with pytest.raises(DataError, match="would have an item"):
        night(shop, settings_with(), DAY, floats)


def test_one_id_in_common_is_no_catalogue(shop: Storage) -> None:
    floats = catalogue().with_columns(
        item_id=pl.when(n == 0).then("item_id").otherwise(pl.col("item_id") + ".0")
    )
    verdict = night(shop, settings_with(), DAY, floats)
    assert {"lost_lists", "known_share", "window_known_share"} <= failed(verdict)


def test_the_first_deployment_of_a_failed_stock_feed_is_refused(shop: Storage) -> None:
    shop.delete(paths.LIVE)
    sold_out = catalogue().with_columns(stock=pl.when(n < 3).then(stock).otherwise(0))
    verdict = night(shop, settings_with(), DAY, sold_out)
    assert failed(verdict) == {"popular_list"}
    (rule,) = [rule for rule in verdict.rules if rule.name == "popular_list"]
    assert rule.sentence.startswith("a stranger gets 3 items, at least 5 needed")


def test_categories_that_the_owner_excludes_are_no_fault(shop: Storage) -> None:
    excluded = tuple(f"category-{number}" for number in range(4))
    settings = settings_with(exclude_categories=excluded)
    assert failed(night(shop, settings, DAY, catalogue())) == set()


def test_a_small_catalogue_may_have_short_lists(shop: Storage) -> None:
    settings = settings_with(top_n=100)
    assert failed(night(shop, settings, DAY, catalogue())) == set()
