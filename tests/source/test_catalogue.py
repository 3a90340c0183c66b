"""The catalogue: its ids are read as the events' are, and a row without one is counted."""

from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from support.databases import make, read

from recsys_ops.cleaning.contract import TextRule
from recsys_ops.errors import DataError
from recsys_ops.source.catalogue import eligible_items, normalise_catalogue, unmanaged_share

ID = TextRule(type="id")


def catalogue(item_id: Any, **columns: Any) -> pl.DataFrame:
    """A delivered catalogue with these ids, and these values in other columns."""
    items = pl.DataFrame({"item_id": item_id})
    others = {"title": "T", "category": "C", "price": 1.5, "stock": 3, "status": "published"}
    return items.with_columns(
        **{name: pl.lit(value) for name, value in others.items()},
    ).with_columns(pl.Series(name, values) for name, values in columns.items())


def ids(delivered: pl.DataFrame, rule: TextRule = ID) -> list[str]:
    return normalise_catalogue(delivered, rule)[0]["item_id"].to_list()


def test_the_catalogue_is_typed_and_only_what_can_be_sold_is_eligible(database_url: str) -> None:
    url = make(
        database_url,
        "CREATE TABLE products (item_id text, title text, category text, price numeric(10,2), "
        "stock integer, status text)",
        "INSERT INTO products VALUES ('c','C','x',1.5,3,'draft'), ('b','B','x',2.5,0,'published')",
        "INSERT INTO products VALUES ('a','A',NULL,9.9,1,'published')",
    )
    products, rejected = normalise_catalogue(read(url, "SELECT * FROM products"), ID)
    assert products["item_id"].to_list() == ["a", "b", "c"]
    assert products["price"].to_list() == [9.9, 2.5, 1.5]
    assert eligible_items(products)["item_id"].to_list() == ["a"]
    assert rejected == {}


def test_a_catalogue_with_an_item_twice_or_a_column_missing_is_refused(
    sqlite_url: sa.URL,
) -> None:
    url = make(sqlite_url, "CREATE TABLE p (item_id text)")
    with pytest.raises(DataError, match="delivers no title, category"):
        normalise_catalogue(read(url, "SELECT * FROM p"), ID)
    with pytest.raises(DataError, match="2 catalogue rows share an item_id"):
        ids(catalogue(["a", "b", " a"]))


def test_numbers_of_any_type_are_one_id() -> None:
    text = ["1000", "7"]
    decimals = pl.Series(["1000.0000", "7.0000"]).cast(pl.Decimal(12, 4))
    for delivered in ([1000, 7], [1000.0, 7.0], decimals, text, [" 1000 ", "7"]):
        assert ids(catalogue(delivered)) == text


def test_case_and_pattern_of_the_contract_apply() -> None:
    rule = TextRule(type="id", case="upper", pattern="[A-Z][0-9]+")
    products, rejected = normalise_catalogue(catalogue(["a1", "postage", "b2"]), rule)
    assert products["item_id"].to_list() == ["A1", "B2"]
    assert rejected == {"pattern": 1}


def test_a_few_rows_without_an_id_are_counted_and_left_out() -> None:
    good = [f"i{n}" for n in range(97)]
    products, rejected = normalise_catalogue(catalogue([*good, None, "  ", "null"]), ID)
    assert products["item_id"].to_list() == sorted(good)
    assert rejected == {"missing": 2, "bad_id": 1}


def test_many_rows_without_an_id_refuse_the_catalogue() -> None:
    delivered = catalogue([0.5, 1.5, *range(20)])
    with pytest.raises(
        DataError, match=r"2 of 22 catalogue rows have no valid item_id \(bad_id 2\), e.g. '0.5'"
    ):
        ids(delivered)


@pytest.mark.parametrize("column", ["price", "stock"])
def test_a_number_that_is_none_is_refused_with_its_column(column: str) -> None:
    with pytest.raises(DataError, match=f"column {column} holds no number in 1 rows, e.g. '1,99'"):
        ids(catalogue(["a", "b"], **{column: ["1,99", "2"]}))


def test_stock_may_be_a_fraction_and_what_is_left_of_a_piece_is_in_stock() -> None:
    decimals = pl.Series(["0.4000", "0.0000", "12.0000", None, "-0.5"]).cast(pl.Decimal(12, 4))
    products = normalise_catalogue(catalogue(list("abcde"), stock=decimals), ID)[0]
    assert products["stock"].to_list() == [1, 0, 12, None, 0]


def test_an_item_without_a_figure_of_stock_is_sold_by_default() -> None:
    stock = pl.Series([3, 0, None, None, None], dtype=pl.Int64)
    status = ["published"] * 4 + ["draft"]
    products = normalise_catalogue(catalogue(list("abcde"), stock=stock, status=status), ID)[0]
    assert eligible_items(products)["item_id"].to_list() == ["a", "c", "d"]
    counted = eligible_items(products, sell_unmanaged_stock=False)
    assert counted["item_id"].to_list() == ["a"]
    assert unmanaged_share(products) == 0.5


def test_a_category_of_any_type_is_text_as_in_the_settings() -> None:
    products = normalise_catalogue(catalogue(["a", "b"], category=[5.0, None], title=[1, 2]), ID)[0]
    assert products.select("category", "title").rows() == [("5", "1"), (None, "2")]
