"""Columns under the names that older clients give them."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.cleaning_rows import CONTRACT_FILE, Collected, align, aligned, fix, verdicts

from recsys_ops.cleaning import Contract, load_contract
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.errors import ContractError

CONTRACT = load_contract(CONTRACT_FILE)
few = settings(max_examples=60)
VALUES = st.one_of(
    st.none(),
    st.integers(-(10**30), 10**30),
    st.text(max_size=8),
    st.text('{}[]",:\\\\0123-.e \n', max_size=8),
    st.decimals(-1, 10**6, places=4),
)


def payload(*texts: str | None) -> pl.DataFrame:
    """Rows that name their item only in the column ``info``."""
    return (
        aligned(*({} for _ in texts))
        .drop("item_id")
        .with_columns(info=pl.Series(texts, dtype=pl.String))
    )


def as_json(value: Any) -> str:
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def test_older_names_become_canonical_and_values_stay_as_delivered(
    contract: Contract,
) -> None:
    frame = aligned({"user_id": " u1 ", "value": "not checked here"})
    delivered = frame.rename(
        {"user_id": "customer_ref", "item_id": "sku", "event_type": "action", "value": "price"}
    )
    cleaned = align(delivered, contract)
    assert_frame_equal(cleaned.kept, frame.with_row_index("row"))
    assert cleaned.rejected.is_empty()


def test_each_row_takes_its_value_from_whichever_column_its_client_filled(
    contract: Contract,
) -> None:
    delivered = aligned(
        {"user_id": "u1"},
        {"user_id": None},
        {"user_id": "  "},
        {"user_id": "u4"},
        {"user_id": None},
    ).with_columns(customer_ref=pl.Series([None, "u2", "u3", " u4 ", ""]))
    assert align(delivered, contract).kept["user_id"].to_list() == ["u1", "u2", "u3", "u4", None]


def test_two_names_that_disagree_reject_the_row_with_both_values(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(
        customer_ref=pl.Series(["u1", "u9"]), sku=pl.Series(["other", "p1"])
    )
    cleaned = align(delivered, contract)
    assert verdicts(cleaned) == [
        ("alias_conflict", "item_id", "item_id=p1 sku=other"),
        ("alias_conflict", "user_id", "user_id=u1 customer_ref=u9"),
    ]
    assert cleaned.kept.is_empty()


def test_number_and_text_under_two_names_agree(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(
        user_id=pl.Series([7.0, None]), customer_ref=pl.Series(["7", "8"])
    )
    assert align(delivered, contract).kept["user_id"].to_list() == ["7", "8"]


def test_inexact_float_under_two_names_does_not_pass_for_a_text_id(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(
        user_id=pl.Series([2.0**53, None]), customer_ref=pl.Series([None, 8.0])
    )
    cleaned = fix(align(delivered, contract).kept, contract)
    assert cleaned.kept["user_id"].to_list() == ["8"]
    assert cleaned.rejected["reason"].to_list() == ["bad_id"]


def test_unknown_columns_are_noted_and_kept_only_with_rejected_rows(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(
        app_version=pl.lit("1.2"), reason=pl.lit("gift"), customer_ref=pl.Series(["u1", "u2"])
    )
    cleaned = align(delivered, contract)
    assert cleaned.notes["unknown_columns"] == ["app_version", "reason"]
    assert cleaned.kept.columns == ["row", *SCHEMA]
    assert cleaned.rejected.select("app_version", "delivered_reason", "reason").rows() == [
        ("1.2", "gift", "alias_conflict")
    ]


def test_missing_required_column_names_itself_its_aliases_and_what_came(contract: Contract) -> None:
    with pytest.raises(
        ContractError, match=r"item_id or product_id or sku.* It has: row_id, recorded_at"
    ):
        align(aligned({}).drop("item_id"), contract)


def test_column_that_may_be_absent_becomes_nulls(contract: Contract) -> None:
    cleaned = align(aligned({}, {}).drop("user_agent", "value"), contract)
    assert cleaned.kept["user_agent"].to_list() == [None, None]
    assert cleaned.kept["value"].to_list() == [None, None]


def test_column_of_lists_is_refused_by_name(contract: Contract) -> None:
    delivered = aligned({}).with_columns(customer_ref=pl.Series([["u1"]]))
    with pytest.raises(ContractError, match="customer_ref holds List"):
        align(delivered, contract)


def test_typed_deliveries_keep_their_types(changed: Callable[..., Contract]) -> None:
    delivered = aligned({}).with_columns(
        value=pl.Series([Decimal("19.90")]), quantity=pl.Series([2])
    )
    assert align(delivered, changed()).kept.schema["value"] == delivered.schema["value"]
    assert align(delivered, changed()).kept.schema["quantity"] == pl.Int64


def test_float_that_lost_an_id_does_not_pass_as_text_beside_a_text_column(
    contract: Contract,
) -> None:
    delivered = aligned({}, {}, {}).with_columns(
        user_id=pl.Series([2.0**53, 7.0, None]), customer_ref=pl.Series([None, None, "u3"])
    )
    cleaned = align(delivered, contract)
    assert cleaned.kept["user_id"].to_list() == ["7", "u3"]
    assert verdicts(cleaned) == [("bad_id", "user_id", "9007199254740992.0")]


def test_one_price_spelled_in_two_ways_is_no_conflict(contract: Contract) -> None:
    delivered = aligned({"value": "19.90"}, {"value": "19.90"}).with_columns(
        price=pl.Series([19.9, 19.91])
    )
    cleaned = align(delivered, contract)
    assert cleaned.kept["value"].to_list() == ["19.90"]
    assert verdicts(cleaned) == [("alias_conflict", "value", "value=19.90 price=19.91")]


def test_value_inside_a_payload_keeps_every_digit(contract: Contract) -> None:
    delivered = payload(
        '{"product_id": 9007199254740993}',
        '{"product_id": 123456789012345678901234567890}',
        '{"product_id": "007"}',
    )
    kept = align(delivered, contract).kept
    assert kept["item_id"].to_list() == [
        "9007199254740993",
        "123456789012345678901234567890",
        "007",
    ]


@few
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8))
def test_whatever_json_encodes_is_read_back_exactly(pairs: list[tuple[Any, Any]]) -> None:
    documents = [f'{{"before": {as_json(a)}, "user": {{"id": {as_json(b)}}}}}' for a, b in pairs]
    delivered = (
        aligned(*({} for _ in documents)).drop("user_id").with_columns(info=pl.Series(documents))
    )
    contract = CONTRACT.model_copy(
        update={
            "columns": CONTRACT.columns
            | {
                "user_id": CONTRACT.columns["user_id"].model_copy(
                    update={"aliases": ("info.user.id",)}
                )
            }
        }
    )
    cleaned = align(delivered, contract)
    values = [b for _, b in pairs if not _looks_nested(b)]
    assert cleaned.kept["user_id"].to_list() == [
        None if value is None else str(value) for value in values
    ]
    assert {reason for reason, *_ in verdicts(cleaned)} <= {"not_a_value"}


def _looks_nested(value: Any) -> bool:
    """Text inside a payload that is JSON itself, or a word of JSON."""
    if not isinstance(value, str):
        return False
    try:
        return value in ("true", "false") or isinstance(json.loads(value), list | dict)
    except ValueError:
        return False


@few
@given(st.data())
def test_payload_is_refused_exactly_when_it_is_no_json_object(data: st.DataObject) -> None:
    good = '{"a": [1, -2.5e3, "x\\"y"], "b": {"c": null, "d": true}, "product_id": "7, 8"}'
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 2))
    text = good[:at] + data.draw(st.text('{}[]",:\\\\0123-.eE ntu', max_size=2)) + good[at + cut :]
    try:
        is_object = isinstance(json.loads(text), dict)
    except ValueError:
        is_object = False
    reasons = [reason for reason, *_ in verdicts(align(payload(text), CONTRACT))]
    assert ("not_json" in reasons) is not is_object


def test_column_with_a_dot_in_its_name_wins_over_the_payload(contract: Contract) -> None:
    delivered = payload('{"product_id": "inside"}').with_columns(
        pl.lit("column").alias("info.product_id")
    )
    assert align(delivered, contract).kept["item_id"].to_list() == ["column"]


def test_payload_column_of_no_text_is_refused_by_name(contract: Contract) -> None:
    delivered = payload(None).with_columns(info=pl.Series([{"product_id": "p1"}]))
    with pytest.raises(ContractError, match="info holds Struct"):
        align(delivered, contract)


def test_event_with_several_items_becomes_a_row_for_each(contract: Contract) -> None:
    delivered = payload(
        '{"content_ids": "a,,b, "}', '{"content_ids": ["c", 7]}', "{}", '{"product_id": "d"}'
    )
    kept = align(delivered, contract).kept
    assert kept.select("row", "event_id", "item_id", "quantity").rows() == [
        (0, "e0", "a", "1"),
        (1, "e0", "b", "1"),
        (2, "e1", "c", "1"),
        (3, "e1", "7", "1"),
        (4, "e2", None, "1"),
        (5, "e3", "d", "1"),
    ]


def test_items_of_many_events_keep_their_order_and_their_numbers(contract: Contract) -> None:
    n = 300_000
    delivered = pl.concat([aligned({})] * n).with_columns(
        row_id=pl.int_range(pl.len()).cast(pl.String),
        item_id=pl.when(pl.int_range(pl.len()) % 7 == 0).then(pl.lit("a,b")).otherwise("item_id"),
    )
    kept = align(delivered, contract).kept
    assert kept["row"].to_list() == list(range(n + (n + 6) // 7))
    assert kept["row_id"].cast(pl.Int64).is_sorted()


def test_without_a_declared_split_a_comma_is_part_of_the_id(
    changed: Callable[..., Contract],
) -> None:
    unsplit = changed(item_id={"split": None})
    assert align(aligned({"item_id": "a,b"}), unsplit).kept["item_id"].to_list() == ["a,b"]


def test_row_does_not_become_thousands(contract: Contract) -> None:
    delivered = aligned({"item_id": ",".join("a" * 1000)}, {"item_id": ",".join("a" * 1001)})
    cleaned = align(delivered, contract)
    assert cleaned.kept.height == 1000
    assert [reason for reason, *_ in verdicts(cleaned)] == ["too_many_items"]


def test_report_says_which_contract_it_was(contract: Contract) -> None:
    assert contract.metadata.items() <= align(aligned({}), contract).notes.items()


@pytest.mark.parametrize(
    "contents",
    [{}, {"info": pl.Series([], dtype=pl.Null)}, {"info": pl.Series([], dtype=pl.String)}],
)
def test_empty_day_keeps_the_schema(contract: Contract, contents: dict[str, pl.Series]) -> None:
    cleaned = align(aligned({}).clear().with_columns(**contents), contract)
    assert cleaned.kept.columns == ["row", *SCHEMA]
    assert cleaned.kept.schema["item_id"] == pl.String
    assert cleaned.rejected.schema["reason"] == pl.String


def test_payload_column_without_any_payload_changes_nothing(contract: Contract) -> None:
    delivered = aligned({}, {}).with_columns(info=pl.lit(None))
    assert align(delivered, contract).kept["item_id"].to_list() == ["p1", "p1"]


def test_reason_shows_the_value_at_fault_and_not_the_rest_of_the_payload(
    contract: Contract,
) -> None:
    cleaned = align(
        payload('{"email": "jo@mail.example", "product_id": {"id": "p1"}}', '{"product_id": true}'),
        contract,
    )
    assert verdicts(cleaned) == [
        ("not_a_value", "item_id", '{"id":"p1"}'),
        ("not_a_value", "item_id", "true"),
    ]


def basket(contents: list[Any] | pl.Series, contract: Contract) -> Collected:
    """Rows with a column ``items``, aligned by `contract`."""
    series = contents if isinstance(contents, pl.Series) else pl.Series(contents, dtype=pl.String)
    delivered = aligned(*({"value": "7.00"} for _ in range(len(series)))).drop(
        "item_id", "quantity"
    )
    return align(delivered.with_columns(items=series), contract)


@pytest.fixture
def in_list(changed: Callable[..., Contract]) -> Contract:
    return changed(
        item_id={"aliases": ["items[].item_id"], "split": None},
        quantity={"aliases": ["items[].quantity"]},
        value={"aliases": [], "first_of": ["items[].price.amount", "value"]},
    )


def test_every_object_of_a_list_is_a_row_with_its_own_values(
    in_list: Contract,
) -> None:
    cleaned = basket(
        [
            '[{"item_id": "a", "quantity": 2, "price": {"amount": 1.50}, "tax": [{"r": [1]}]},'
            ' {"item_id": 9007199254740993, "name": "]},{\\"item_id\\": 1}"}]',
            '[{"item_id": "c"}, {}]',
            *(None, "null", " ", "[]", "[ ]"),
        ],
        in_list,
    )
    assert cleaned.kept.select("row", "event_id", "item_id", "quantity", "value").rows() == [
        (0, "e0", "a", "2", "1.50"),
        (1, "e0", "9007199254740993", None, "7.00"),
        (2, "e1", "c", None, "7.00"),
        (3, "e1", None, None, "7.00"),
        *((n + 2, f"e{n}", None, None, "7.00") for n in range(2, 7)),
    ]
    assert cleaned.notes["split"] == ["items"]
    assert cleaned.notes["unknown_columns"] == []


def test_a_broken_value_of_one_object_rejects_that_object_alone(in_list: Contract) -> None:
    text = '[{"item_id": "a", "quantity": "x"}, {"item_id": "null"}, {"item_id": "c"}]'
    cleaned = fix(basket([text], in_list).kept, in_list)
    assert cleaned.kept["item_id"].to_list() == ["c"]
    assert verdicts(cleaned) == [
        ("not_an_integer", "quantity", "x"),
        ("bad_id", "item_id", "null"),
    ]


@pytest.mark.parametrize(
    ("text", "reason", "column", "value"),
    [
        ('["a"]', "not_a_value", "items", '["a"]'),
        ("[{}, null]", "not_a_value", "items", "[{}, null]"),
        ("[{},]", "not_a_value", "items", "[{},]"),
        ("[{}", "not_a_value", "items", "[{}"),
        ('{"item_id": "a"}', "not_a_value", "items", '{"item_id": "a"}'),
        ('["{}"]', "not_a_value", "items", '["{}"]'),
        ('[{"item_id": "a"}, {"item_id" "b"}]', "not_json", "items", '{"item_id" "b"}'),
        ('[{"item_id": "a"}, {"item_id": ["b"]}]', "not_a_value", "item_id", '["b"]'),
        ("[" + "{}," * 1000 + "{}]", "too_many_items", "items", "[" + "{}," * 1000 + "{}]"),
    ],
)
def test_a_broken_list_rejects_its_row_once_and_no_other(
    in_list: Contract, text: str, reason: str, column: str, value: str
) -> None:
    cleaned = basket(['[{"item_id": "z"}]', text], in_list)
    assert verdicts(cleaned) == [(reason, column, value)]
    assert cleaned.rejected["row"].to_list() == [1]
    assert cleaned.kept["item_id"].to_list() == ["z"]


def test_a_list_inside_a_payload_is_read_by_its_path(changed: Callable[..., Contract]) -> None:
    contract = changed(
        item_id={"aliases": ["info.cart.items[].sku.id", "info.product"], "split": None}
    )
    delivered = payload(
        '{"cart": {"items": [{"sku": {"id": 9007199254740993}}, {"sku": {"id": "b"}}]}}',
        '{"product": "c"}',
    )
    cleaned = align(delivered, contract)
    assert cleaned.kept["item_id"].to_list() == ["9007199254740993", "b", "c"]
    assert cleaned.notes["unknown_columns"] == []


def test_a_typed_list_keeps_the_types_of_its_fields(in_list: Contract) -> None:
    items = [
        [
            {"item_id": "a", "quantity": 2, "price": {"amount": Decimal("1.50")}},
            {"item_id": "b", "quantity": None, "price": None},
        ],
        [],
        None,
        [{"item_id": "x", "quantity": 1, "price": None}] * 1001,
    ]
    cleaned = basket(pl.Series(items), in_list)
    assert cleaned.kept["item_id"].to_list() == ["a", "b", None, None]
    assert cleaned.kept["value"].to_list() == ["1.5", "7.00", "7.00", "7.00"]
    assert cleaned.kept.schema["quantity"] == pl.Int64
    assert verdicts(cleaned) == [("too_many_items", "items", None)]


@few
@given(st.lists(st.lists(st.tuples(VALUES, VALUES), max_size=4), min_size=1, max_size=5))
def test_whatever_json_encodes_in_a_list_is_read_back_exactly(
    rows: list[list[tuple[Any, Any]]],
) -> None:
    columns = CONTRACT.columns
    item_id = columns["item_id"].model_copy(update={"aliases": ("items[].id",), "split": None})
    contract = CONTRACT.model_copy(update={"columns": columns | {"item_id": item_id}})
    objects = [[f'{{"n": [{as_json(a)}], "id": {as_json(b)}}}' for a, b in row] for row in rows]
    texts = [f"[{' , '.join(of_row)}]" for of_row in objects]
    delivered = aligned(*({} for _ in rows)).drop("item_id")
    cleaned = align(delivered.with_columns(items=pl.Series(texts)), contract)
    whole = [row for row in rows if not any(_looks_nested(b) for _, b in row)]
    assert cleaned.kept["item_id"].to_list() == [
        None if value is None else str(value) for row in whole for _, value in row or [(None, None)]
    ]


def test_lists_of_many_rows_keep_their_order(in_list: Contract) -> None:
    n = 150_000
    number = pl.int_range(pl.len())
    items = pl.format('[{{"item_id": "{}"}}, {{"item_id": "{}b"}}]', number, number)
    frame = pl.select(number=pl.int_range(n)).select(items=pl.when(number % 7 == 0).then(items))
    delivered = (
        pl.concat([aligned({})] * n)
        .drop("item_id")
        .with_columns(frame["items"], row_id=number.cast(pl.String))
    )
    kept = align(delivered, in_list).kept
    assert kept["row"].to_list() == list(range(n + (n + 6) // 7))
    expected = [item for k in range(n) for item in ((f"{k}", f"{k}b") if k % 7 == 0 else (None,))]
    assert kept["item_id"].to_list() == expected
