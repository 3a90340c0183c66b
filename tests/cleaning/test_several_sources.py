"""Columns made from several delivered ones: the first of them with a value, or a composite id."""

from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cleaning_rows import CONTRACT_FILE, align, aligned, fix, verdicts

from recsys_ops.cleaning import Contract, load_contract
from recsys_ops.errors import ContractError

CONTRACT = load_contract(CONTRACT_FILE)
few = settings(max_examples=60)


def test_first_of_takes_the_first_value_that_can_be_an_id(changed: Callable[..., Contract]) -> None:
    contract = changed(user_id={"aliases": [], "first_of": ["login", "user_id", "info.cookie"]})
    delivered = aligned({}, {"user_id": None}, {"user_id": "0"}, {"user_id": " "}).with_columns(
        login=pl.Series([" l1 ", "", None, "null"]),
        info=pl.Series(['{"cookie": "c"}', '{"cookie": "c"}', '{"cookie": 7}', "{}"]),
    )
    cleaned = align(delivered, contract)
    assert [value and value.strip() for value in cleaned.kept["user_id"]] == [
        "l1",
        "c",
        "7",
        "null",
    ]
    assert verdicts(fix(cleaned.kept, contract)) == [("nobody", "user_id", "null")]


def test_first_of_typed_columns_keeps_their_type(changed: Callable[..., Contract]) -> None:
    contract = changed(quantity={"first_of": ["pieces", "quantity"]})
    delivered = aligned({}, {}).with_columns(
        pieces=pl.Series([None, 3]), quantity=pl.Series([2, 2])
    )
    kept = align(delivered, contract).kept
    assert kept["quantity"].dtype == pl.Int64
    assert kept["quantity"].to_list() == [2, 3]


def test_composite_id_is_missing_without_one_of_its_parts(
    changed: Callable[..., Contract],
) -> None:
    contract = changed(event_id={"concat": ["order_id", "line"]})
    delivered = aligned(*({} for _ in range(4))).with_columns(
        order_id=pl.Series([1001, 1002, None, 1004]), line=pl.Series([" 1 ", "", "3", "undefined"])
    )
    cleaned = align(delivered, contract)
    assert cleaned.kept["event_id"].to_list() == ["1001|1", None, None, "undefined"]
    assert verdicts(fix(cleaned.kept, contract)) == [
        ("missing", "event_id", None),
        ("missing", "event_id", None),
        ("bad_id", "event_id", "undefined"),
    ]


def test_delivery_without_a_part_of_an_id_is_refused(changed: Callable[..., Contract]) -> None:
    contract = changed(event_id={"concat": ["order_id", "line"]})
    with pytest.raises(ContractError, match="lacks the required column order_id and line"):
        align(aligned({}).with_columns(order_id=pl.lit("1")), contract)


@few
@given(st.lists(st.tuples(*[st.text("ab|\\", min_size=1, max_size=4)] * 2), min_size=2, max_size=9))
def test_two_different_pairs_never_make_one_id(pairs: list[tuple[str, str]]) -> None:
    event_id = CONTRACT.columns["event_id"].model_copy(update={"concat": ("a", "b")})
    contract = CONTRACT.model_copy(update={"columns": CONTRACT.columns | {"event_id": event_id}})
    # a part of signs alone is no id
    parts = pl.DataFrame(pairs, schema=["a", "b"], orient="row").select(
        pl.format("x{}x", name).alias(name) for name in "ab"
    )
    kept = align(pl.concat([aligned(*({} for _ in pairs)), parts], how="horizontal"), contract).kept
    assert kept["event_id"].n_unique() == len(set(pairs))
