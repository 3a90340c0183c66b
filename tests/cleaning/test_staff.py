"""Staff and test accounts."""

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError
from support.cleaning_rows import events

from recsys_ops.cleaning import filter_staff
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.errors import SettingsError
from recsys_ops.settings import StaffSettings


def frame(*rows: dict[str, Any]) -> pl.LazyFrame:
    return events(*rows).with_row_index("row").lazy()


RULES = StaffSettings(
    user_ids=("boss",),
    roles=("admin", "staff"),
    email_domains=("Shop.example",),
    networks=["203.0.113.0/24", "2001:db8::/32"],  # type: ignore[arg-type]
    test_account_pattern=r"^test\+",
)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"user_id": "boss"}, ("staff_account", "user_id", "boss")),
        ({"role": "Admin"}, ("staff_role", "role", "Admin")),
        ({"email": "jo@SHOP.example"}, ("staff_email", "email", "jo@SHOP.example")),
        ({"ip": "203.0.113.9"}, ("staff_network", "ip", "203.0.113.9")),
        ({"ip": "203.0.113.0/32"}, ("staff_network", "ip", "203.0.113.0/32")),
        ({"ip": "203.0.113.255"}, ("staff_network", "ip", "203.0.113.255")),
        ({"ip": "::ffff:203.0.113.9"}, ("staff_network", "ip", "::ffff:203.0.113.9")),
        ({"ip": "::FFFF:CB00:7109"}, ("staff_network", "ip", "::FFFF:CB00:7109")),
        ({"ip": "2001:db8::1"}, ("staff_network", "ip", "2001:db8::1")),
        ({"ip": "2001:0DB8:ffff::1/128"}, ("staff_network", "ip", "2001:0DB8:ffff::1/128")),
        ({"ip": "203.0.113.9:51234"}, ("staff_network", "ip", "203.0.113.9:51234")),
        ({"ip": '"203.0.113.9"'}, ("staff_network", "ip", '"203.0.113.9"')),
        ({"ip": "203.0.113.9, 10.0.0.1"}, ("staff_network", "ip", "203.0.113.9, 10.0.0.1")),
        ({"ip": "3405803785"}, ("staff_network", "ip", "3405803785")),
        ({"ip": "cb007109"}, ("staff_network", "ip", "cb007109")),
        ({"ip": "[2001:db8::7]:64828"}, ("staff_network", "ip", "[2001:db8::7]:64828")),
        ({"ip": "2001:db8::203.0.113.9"}, ("staff_network", "ip", "2001:db8::203.0.113.9")),
        ({"email": "Test+1@mail.example"}, ("test_account", "email", "Test+1@mail.example")),
        ({"user_id": "boss", "role": "admin"}, ("staff_account", "user_id", "boss")),
    ],
)
def test_staff_are_rejected_with_the_rule_that_matched(
    row: dict[str, str], verdict: tuple[str, str, str]
) -> None:
    cleaned = filter_staff(frame({}, row, {}), RULES)
    assert cleaned.rejected.collect().select("reason", "column", "value").rows() == [verdict]
    assert cleaned.kept.collect()["event_id"].to_list() == ["e0", "e2"]


@pytest.mark.parametrize(
    "row",
    [
        {"ip": "203.0.114.9"},
        {"ip": "203.0.112.255/32"},
        {"ip": "::ffff:203.0.114.9"},
        {"ip": "2001:db9::1"},
        {"ip": "::203.0.113.9"},
        {"ip": "203.0.113"},
        {"ip": "203.0.113.009"},
        {"ip": "203.0.113.9é"},
        {"ip": "198.51.100.1, 203.0.113.9"},
        {"ip": "-"},
        {"ip": "not an address"},
        {"ip": None},
        {"email": "jo@shop.example.org"},
        {"email": "shop.example@mail.example"},
        {"email": "contest+1@mail.example"},
        {"email": None, "role": None},
        {"role": "administrator"},
    ],
)
def test_customers_are_not_rejected_as_staff(row: dict[str, str | None]) -> None:
    assert filter_staff(frame(row), RULES).kept.collect().height == 1


def test_corrected_list_applied_to_the_same_rows_gives_a_new_result() -> None:
    day = frame({"user_id": "boss"}, {"email": "jo@agency.example"}, {"ip": "198.51.100.7"})
    corrected = StaffSettings(email_domains=("agency.example",), networks=["198.51.100.0/24"])  # type: ignore[arg-type]
    before, after, before_again = (
        filter_staff(day, rules).kept.collect() for rules in (RULES, corrected, RULES)
    )
    assert before["event_id"].to_list() == ["e1", "e2"]
    assert after["event_id"].to_list() == ["e0"]
    assert before_again.equals(before)


@pytest.mark.parametrize("domain", ["@shop.example", "jo@shop.example", ""])
def test_e_mail_domain_that_would_match_nobody_is_refused(domain: str) -> None:
    with pytest.raises(ValidationError, match="email_domains"):
        StaffSettings(email_domains=(domain,))


def test_texts_that_are_no_address_are_counted_by_their_form() -> None:
    day = frame(
        *({"ip": text} for text in ("203.0.113", "198.51.100", "unknown host", "203.0.113.9")),
        *({"ip": text} for text in ("-", "null", '""', None)),
    )
    cleaned = filter_staff(day, RULES)
    assert cleaned.notes["no_addresses"] == {"9.9.9": 2, "a a": 1}
    assert cleaned.warnings == (
        "the column ip holds rows whose text is no address, such as 9.9.9 (2), a a (1): "
        "cleaning.staff.networks cannot find staff among them",
    )
    assert cleaned.kept.collect().height == 7
    without_networks = filter_staff(day, StaffSettings())
    assert (without_networks.notes["no_addresses"], without_networks.warnings) == ({}, ())


@pytest.mark.parametrize("network", ["0.0.0.0/0", "203.0.113.8/31", "203.0.113.9/32"])
def test_network_of_any_size_contains_its_address(network: str) -> None:
    rules = StaffSettings(networks=[network])  # type: ignore[arg-type]
    day = frame({"ip": "203.0.113.9"}, {"ip": "2001:db8::1"})
    assert filter_staff(day, rules).rejected.collect()["ip"].to_list() == ["203.0.113.9"]


def test_without_rules_only_roles_count() -> None:
    assert filter_staff(
        frame({"ip": "203.0.113.9"}, {"role": "staff"}), StaffSettings()
    ).kept.collect()["event_id"].to_list() == ["e0"]


def test_wrong_test_account_pattern_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cleaning\.staff\.test_account_pattern"):
        filter_staff(frame({}), StaffSettings(test_account_pattern="(?=x)"))


def test_empty_day_keeps_the_schema() -> None:
    assert filter_staff(frame({}).clear(), RULES).kept.collect().schema == {
        "row": pl.UInt32,
        **SCHEMA,
    }
