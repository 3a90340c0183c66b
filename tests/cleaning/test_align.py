"""Columns under whatever names older clients give them."""

from collections.abc import Callable
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys_ops.cleaning import Contract, align_schema, fix_types
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.errors import ContractError

from .conftest import aligned, verdicts


def test_older_names_become_the_canonical_ones_and_values_stay_as_delivered(contract: Contract) -> None:
    frame = aligned({"user_id": " u1 ", "value": "not checked here"})
    delivered = frame.rename({"user_id": "customer_ref", "item_id": "sku", "event_type": "action", "value": "price"})
    cleaned = align_schema(delivered, contract)
    assert_frame_equal(cleaned.kept, frame)
    assert cleaned.rejected.is_empty()


def test_each_row_takes_its_value_from_whichever_column_its_client_filled(contract: Contract) -> None:
    delivered = aligned(
        {"user_id": "u1"}, {"user_id": None}, {"user_id": "  "}, {"user_id": "u4"}, {"user_id": None}
    ).with_columns(customer_ref=pl.Series([None, "u2", "u3", " u4 ", ""]))
    assert align_schema(delivered, contract).kept["user_id"].to_list() == ["u1", "u2", "u3", "u4", None]


def test_two_names_that_disagree_reject_the_row_with_both_values(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(customer_ref=pl.Series(["u1", "u9"]), sku=pl.Series(["other", "p1"]))
    cleaned = align_schema(delivered, contract)
    assert verdicts(cleaned) == [
        ("alias_conflict", "item_id", "item_id=p1 sku=other"),
        ("alias_conflict", "user_id", "user_id=u1 customer_ref=u9"),
    ]
    assert cleaned.kept.is_empty()


def test_number_and_text_under_two_names_agree(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(user_id=pl.Series([7.0, None]), customer_ref=pl.Series(["7", "8"]))
    assert align_schema(delivered, contract).kept["user_id"].to_list() == ["7", "8"]


def test_inexact_float_under_two_names_does_not_pass_for_a_text_id(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(user_id=pl.Series([2.0**53, None]), customer_ref=pl.Series([None, 8.0]))
    cleaned = fix_types(align_schema(delivered, contract).kept, contract)
    assert cleaned.kept["user_id"].to_list() == ["8"]
    assert cleaned.rejected["reason"].to_list() == ["bad_id"]


def test_unknown_columns_are_noted_and_kept_only_with_rejected_rows(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(
        app_version=pl.lit("1.2"), reason=pl.lit("gift"), customer_ref=pl.Series(["u1", "u2"])
    )
    cleaned = align_schema(delivered, contract)
    assert cleaned.notes == {"unknown_columns": ["app_version", "reason"]}
    assert cleaned.kept.columns == list(SCHEMA)
    assert cleaned.rejected.select("app_version", "delivered_reason", "reason").rows() == [("1.2", "gift", "alias_conflict")]


def test_missing_required_column_names_itself_its_aliases_and_what_came(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"item_id or product_id or sku.* It has: row_id, recorded_at"):
        align_schema(aligned({}).drop("item_id"), contract)


def test_column_that_may_be_absent_becomes_nulls(contract: Contract) -> None:
    cleaned = align_schema(aligned({}, {}).drop("user_agent", "value"), contract)
    assert cleaned.kept["user_agent"].to_list() == [None, None]
    assert cleaned.kept["value"].to_list() == [None, None]


def test_column_of_lists_is_refused_by_name(contract: Contract) -> None:
    delivered = aligned({}).with_columns(customer_ref=pl.Series([["u1"]]))
    with pytest.raises(ContractError, match="customer_ref holds List"):
        align_schema(delivered, contract)


def test_typed_deliveries_keep_their_types(changed: Callable[..., Contract]) -> None:
    delivered = aligned({}).with_columns(value=pl.Series([Decimal("19.90")]), quantity=pl.Series([2]))
    assert align_schema(delivered, changed()).kept.schema["value"] == delivered.schema["value"]
    assert align_schema(delivered, changed()).kept.schema["quantity"] == pl.Int64
