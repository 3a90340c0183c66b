"""The contract file: what is accepted, and the messages about mistakes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cleaning_rows import CONTRACT_FILE

from recsys_ops.cleaning import Contract, load_contract
from recsys_ops.errors import ContractError


def test_shipped_contract_knows_every_event_name_in_lower_case(contract: Contract) -> None:
    assert contract.event_names["add_to_cart"] == "cart"
    assert set(contract.event_names.values()) == {
        "view",
        "wishlist",
        "cart",
        "checkout",
        "purchase",
    }


@pytest.mark.parametrize(
    ("column", "keys", "message"),
    [
        ("user_id", {"patern": "u.*"}, "columns.user_id.patern"),
        ("user_id", {"pattern": "("}, "columns.user_id.pattern: is not a regular expression"),
        ("user_id", {"nullable": True}, "columns.user_id.nullable"),
        ("user_id", {"required": False}, "columns.user_id.required"),
        ("user_id", {"aliases": ["sku"]}, "sku named more than once"),
        (
            "quantity",
            {"min": 9, "max": 1, "default": None},
            "columns.quantity: min = 9 is above max = 1",
        ),
        ("quantity", {"default": 0}, "columns.quantity: default = 0 is not between min = 1"),
        ("quantity", {"type": "text"}, "columns.quantity"),
        ("quantity", {"type": "decimal", "min": 0}, "columns.quantity.min: is 0.0, but must be ab"),
        ("quantity", {"min": -(2**53)}, "columns.quantity.min: is -9007199254740992, but must be"),
        ("quantity", {"max": 2**60}, "columns.quantity.max"),
        ("value", {"type": "integer"}, "columns.value.type: integer is not allowed, use decimal"),
        ("value", {"max": float("inf")}, "columns.value.max"),
        ("user_id", {"type": "text"}, "columns.user_id.type: text is not allowed, use id"),
        ("role", {"except": ["guest"]}, "columns.role.except: only ids have words"),
        (
            "event_time",
            {"timezone": "Middle/Earth"},
            "columns.event_time.timezone: is not a time zone",
        ),
        ("event_time", {"formats": ["guess"]}, "columns.event_time.formats.0: must be one of iso"),
        ("event_time", {"formats": ["%d/%m/%y %H:%M"]}, "%y in '%d/%m/%y %H:%M' is not known"),
        (
            "event_time",
            {"formats": ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"]},
            "columns.event_time.formats: '%d/%m/%Y %H:%M' and '%m/%d/%Y %H:%M' read '05/04/2003",
        ),
        ("event_time", {"max_ahead_minutes": 10**12}, "columns.event_time.max_ahead_minutes"),
        ("price_paid", {"type": "decimal"}, "price_paid"),
        (
            "recorded_at",
            {"timezone": "Europe/Berlin"},
            "columns.recorded_at.timezone: must be UTC or not be set",
        ),
        (
            "recorded_at",
            {"max_ahead_minutes": 5},
            "columns.recorded_at.max_ahead_minutes: must not be set",
        ),
        ("user_id", {"split": ","}, "columns.user_id.split: only item_id"),
        ("item_id", {"split": ""}, "columns.item_id.split"),
        ("user_id", {"aliases": ["info."]}, "columns.user_id.aliases: 'info.' is no path"),
        ("user_id", {"aliases": [".id"]}, "columns.user_id.aliases: '.id' is no path"),
        ("user_id", {"aliases": ["info.a'b"]}, "is no path"),
        ("user_id", {"aliases": ["items[0].id"]}, "is no path"),
        ("user_id", {"aliases": ["items[]"]}, "is no path"),
        ("item_id", {"aliases": ["a[].b[].id"]}, "is no path"),
        (
            "user_id",
            {"first_of": ["a"], "aliases": ["b"]},
            "only one of aliases, first_of and conc",
        ),
        ("user_id", {"aliases": [], "first_of": ["a", "a"]}, "a named more than once"),
        ("quantity", {"concat": ["a", "b"]}, "columns.quantity.concat: only for id and text"),
        ("item_id", {"aliases": [], "concat": ["a", "b"]}, "columns.item_id.concat: only for id"),
        ("quantity", {"aliases": ["items[].n"]}, "item_id: must be in the list too, as items[]"),
        (
            "item_id",
            {"aliases": ["items[].id", "lines[].id"]},
            "items, lines: only one list of obj",
        ),
        ("item_id", {"aliases": ["items[].id"]}, "columns.item_id.split: must not be set beside"),
        ("user_id", {"aliases": ["info.product_id"]}, "info.product_id named more than once"),
    ],
)
def test_wrong_key_is_named(
    tmp_path: Path, column: str, keys: dict[str, Any], message: str
) -> None:
    document = yaml.safe_load(CONTRACT_FILE.read_text())
    document["columns"][column] = document["columns"].get(column, {}) | keys
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ContractError) as error:
        load_contract(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("version", [0, "1.1", None])
def test_version_is_a_number_that_the_team_raises(tmp_path: Path, version: Any) -> None:
    document = yaml.safe_load(CONTRACT_FILE.read_text()) | {"version": version}
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ContractError, match="version: "):
        load_contract(tmp_path / "contract.yaml")


def test_metadata_name_the_version_and_the_hash_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_bytes(CONTRACT_FILE.read_bytes().replace(b"version: 1", b"version: 12"))
    assert load_contract(path).metadata == {
        "contract_version": "12",
        "contract_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_ignored_event_name_with_a_meaning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(CONTRACT_FILE.read_text() + "  ignore: [scroll, view]\n")
    with pytest.raises(ContractError, match="event_types: view named more than once"):
        load_contract(path)


def test_event_name_with_two_meanings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(
        CONTRACT_FILE.read_text().replace("[cart, add_to_cart, addtocart]", "[cart, View]")
    )
    with pytest.raises(ContractError, match="event_types: view named more than once"):
        load_contract(path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no data contract at .*cleaning\.contract"):
        load_contract(tmp_path / "contract.yaml")
    for broken in (b"columns: [", b"version: \xff"):
        (tmp_path / "contract.yaml").write_bytes(broken)
        with pytest.raises(ContractError, match="is not YAML"):
            load_contract(tmp_path / "contract.yaml")


def test_contract_cannot_be_changed_while_a_day_is_cleaned(
    changed: Callable[..., Contract],
) -> None:
    with pytest.raises(ValueError, match="frozen"):
        changed().version = 2  # type: ignore[assignment]
