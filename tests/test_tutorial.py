"""The tutorial's files keep their promises on a small table in the shape of its data."""

import importlib.util
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType

import polars as pl
import psycopg
import pytest
import sqlalchemy as sa

from recsys_ops.cleaning import (
    align_schema,
    deduplicate,
    filter_bots,
    filter_crawlers,
    filter_staff,
    fix_types,
    load_contract,
)
from recsys_ops.history.table import replace_days
from recsys_ops.settings import Settings, load_settings
from recsys_ops.source.catalogue import eligible_items, normalise_catalogue
from recsys_ops.source.database import query_frame
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial"
INCLUDE = TUTORIAL / "include"
HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"
LINES = """\
489434,85123a,WHITE HANGING HEART T-LIGHT HOLDER,12,2009-12-01 07:45:00,2.95,13085.0,United Kingdom
489434,85123A,WHITE HANGING HEART T-LIGHT HOLDER,12,2009-12-01 07:45:00,2.95,13085.0,United Kingdom
489434,22041,"RECORD FRAME 7"" SINGLE SIZE",48,2009-12-01 07:45:00,2.1,13085.0,United Kingdom
489434,22041,"RECORD FRAME 7"" SINGLE SIZE",6,2009-12-01 07:45:00,2.1,13085.0,United Kingdom
C489449,22087,PAPER BUNTING WHITE LACE,-12,2009-12-01 10:33:00,2.95,16321.0,Australia
A506401,B,Adjust bad debt,1,2009-12-01 10:34:00,-53594.36,,United Kingdom
489521,21646,,-50,2009-12-01 11:44:00,0,,United Kingdom
489522,22087,PAPER BUNTING WHITE LACE,-1,2009-12-01 11:45:00,2.95,16321.0,Australia
489523,22087,PAPER BUNTING WHITE LACE,3,2009-12-01 11:46:00,0,16321.0,Australia
489524,POST,POSTAGE,1,2009-12-01 11:47:00,18,16321.0,Australia
489525,TEST001,This is a test product.,5,2009-12-01 11:48:00,4.5,12346.0,United Kingdom
489526,SP1002,KID'S CHALKBOARD/EASEL,1,2009-12-01 11:49:00,219.5,16321.0,Australia
489527,10002,INFLATABLE POLITICAL GLOBE,19152,2009-12-01 23:59:00,0.1,13902.0,Denmark
501000,22087,PAPER BUNTING LACE,1,2010-07-01 00:30:00,3.25,16321.0,Australia
"""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/blob")


@pytest.fixture
def tutorial_settings(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> Iterator[Settings]:
    monkeypatch.setenv("RECSYS_INCLUDE", str(INCLUDE))
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", storage.root)
    load_settings.cache_clear()
    yield load_settings()
    load_settings.cache_clear()


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> sa.URL:
    """A database with `LINES`, put there by the tutorial's loader."""
    url = sa.make_url(database_url)
    file = tmp_path / "online_retail_II.csv"
    file.write_text(f"{HEADER}\n{LINES}")
    conninfo = psycopg.conninfo.make_conninfo(
        host=url.query["host"], user=url.username, dbname=url.database
    )
    assert (
        script("load").load(file, conninfo) == script("load").load(file, conninfo) == 14
    )  # again replaces
    return url


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tutorial_{name}", TUTORIAL / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def query(shop: sa.URL, name: str, **parameters: datetime) -> pl.DataFrame:
    return query_frame(shop, (INCLUDE / "sql" / name).read_text(), parameters, timeout_s=60)


def ingested(shop: sa.URL, first: date, end: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The kept and the rejected lines of first … end − 1 after `deduplicate`, by row number."""
    start, stop = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, end))
    contract = load_contract(INCLUDE / "contract.yaml")
    aligned = align_schema(
        query(shop, "extract_events.sql", start=start, end=stop).lazy(), contract
    )
    assert aligned.rejected.collect().is_empty()
    assert aligned.notes["unknown_columns"] == ["country"]
    fixed = fix_types(aligned.kept, contract)
    single = deduplicate(fixed.kept)
    rejected = [pl.col("row", "reason", "column", "value"), pl.col("row_id").cast(pl.Int64)]
    return single.kept.collect(), pl.concat(
        cleaned.rejected.select(rejected).collect() for cleaned in (fixed, single)
    )


def test_every_kind_of_dirt_is_rejected_under_its_own_reason(shop: sa.URL) -> None:
    _, rejected = ingested(shop, date(2009, 12, 1), date(2009, 12, 2))
    assert rejected.sort("row").select("row_id", "reason", "column", "value").rows() == [
        (1, "duplicate", "event_id", "489434"),
        (3, "superseded", "event_id", "489434"),
        (5, "unknown_event", "event_type", "cancellation"),
        (6, "unknown_event", "event_type", "adjustment"),
        (7, "missing", "user_id", None),
        (8, "out_of_bounds", "quantity", "-1"),
        (9, "out_of_bounds", "value", "0"),
        (10, "pattern", "item_id", "POST"),
        (11, "pattern", "item_id", "TEST001"),
    ]


def test_kept_lines_have_whole_customer_numbers_and_upper_case_codes(shop: sa.URL) -> None:
    kept, _ = ingested(shop, date(2009, 12, 1), date(2009, 12, 2))
    assert kept.select(
        "row_id", "event_id", "user_id", "item_id", "event_type", "quantity", "value"
    ).rows() == [
        ("2", "489434", "13085", "85123A", "purchase", 12, 2.95),
        ("4", "489434", "13085", "22041", "purchase", 6, 2.1),
        ("12", "489526", "16321", "SP1002", "purchase", 1, 219.5),
        ("13", "489527", "13902", "10002", "purchase", 19152, 0.1),
    ]


def test_the_later_steps_keep_all_of_a_shop_without_user_agents(
    shop: sa.URL, tutorial_settings: Settings
) -> None:
    kept, _ = ingested(shop, date(2009, 12, 1), date(2009, 12, 2))
    cleaning = tutorial_settings.cleaning
    crawled = filter_crawlers(kept.lazy(), cleaning.crawlers).kept
    assert (
        filter_staff(filter_bots(crawled, cleaning.bots).kept, cleaning.staff)
        .kept.collect()
        .equals(kept)
    )


def test_a_line_after_midnight_in_summer_belongs_to_the_utc_day_before(
    shop: sa.URL,
) -> None:
    assert ingested(shop, date(2010, 6, 30), date(2010, 7, 1))[0]["recorded_at"].to_list() == [
        datetime(2010, 6, 30, 23, 30, tzinfo=UTC)
    ]
    assert ingested(shop, date(2010, 7, 1), date(2010, 7, 2))[0].is_empty()


def test_an_item_has_its_latest_title_and_is_in_stock_while_it_sells(shop: sa.URL) -> None:
    products, rejected = normalise_catalogue(
        query(shop, "extract_catalogue.sql"),
        load_contract(INCLUDE / "contract.yaml").columns["item_id"],
    )
    assert rejected == {"pattern": 2}  # postage and the test article
    assert products["item_id"].to_list() == [
        "10002",
        "22041",
        "22087",
        "85123A",
        "SP1002",
    ]
    assert eligible_items(products).select("item_id", "title", "price").rows() == [
        ("22087", "PAPER BUNTING LACE", 3.25)
    ]


def test_the_tutorials_settings_differ_where_the_page_says(
    tutorial_settings: Settings,
) -> None:
    assert tutorial_settings.confidence.weights == {"purchase": 1}
    assert tutorial_settings.evaluation.events == ("purchase",)
    assert (
        tutorial_settings.evaluation.exclude_seen is tutorial_settings.lists.exclude_seen is False
    )
    assert tutorial_settings.gate.allow_first_deployment is False


def test_settings_can_be_tried_on_days_of_the_history(
    storage: Storage, tutorial_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    first = datetime(2010, 11, 1, 12, tzinfo=UTC)
    # 20 customers, each every day buys two of the five items of their taste
    bought = [
        (user, day, (user % 4) * 5 + (user + day + n) % 5)
        for user in range(20)
        for day in range(8)
        for n in range(2)
    ]
    users, days, items = zip(*bought, strict=True)
    times = pl.Series([first + timedelta(days=day) for day in days], dtype=pl.Datetime("us", "UTC"))
    ids = {
        "event_id": [f"{u}-{d}" for u, d in zip(users, days, strict=True)],
        "user_id": map(str, users),
        "item_id": map(str, items),
    }
    events = pl.DataFrame({name: list(values) for name, values in ids.items()}).with_columns(
        event_type=pl.lit("purchase"), event_time=times, recorded_at=times, quantity=1, value=1.0
    )
    replace_days(storage, events, first.date(), first.date() + timedelta(days=7))
    try_settings = script("try_settings")
    try_settings.main([date(2010, 11, 7), date(2010, 11, 8)])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == [
        "half-life",
        "factors",
        "regularization",
        "exponent",
        "exclude_seen",
    ]
    seen_allowed = [row.split() for row in rows if row.split()[4] == "False"]
    assert len(rows) == 2 * len(seen_allowed) == 2 * len(try_settings.TRIALS)
    model, popularity = map(float, seen_allowed[0][5:7])
    assert model > 1.5 * popularity, "the model finds tastes that popularity cannot know"


def test_the_outcome_adds_the_rows_of_all_runs_up(
    storage: Storage, tutorial_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = script("outcome").STEPS
    for day, missing in ((date(2010, 11, 1), 300), (date(2010, 11, 2), 900)):
        for step in steps:
            report = {
                "rows_in": 1000,
                "kept": 1000 - missing,
                "rejected": missing,
                "reasons": {"missing": missing},
                "seconds": 0.5,
            }
            storage.write_json(paths.report(step, day), report)
    script("outcome").main()
    assert (
        "  fix_types        rows_in 2,000 kept 800 rejected 1,200 missing 1,200\n"
        in capsys.readouterr().out
    )
