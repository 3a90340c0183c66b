"""People who work at the shop are no customers."""

import pytest

from recsys_ops.cleaning import filter_staff
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.errors import SettingsError
from recsys_ops.settings import StaffSettings

from .conftest import events

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
        ({"ip": "::ffff:203.0.113.9"}, ("staff_network", "ip", "::ffff:203.0.113.9")),
        ({"ip": "2001:db8::1"}, ("staff_network", "ip", "2001:db8::1")),
        ({"email": "Test+1@mail.example"}, ("test_account", "email", "Test+1@mail.example")),
        ({"user_id": "boss", "role": "admin"}, ("staff_account", "user_id", "boss")),
    ],
)
def test_staff_are_rejected_with_the_rule_that_found_them(row: dict[str, str], verdict: tuple[str, str, str]) -> None:
    cleaned = filter_staff(events({}, row, {}), RULES)
    assert cleaned.rejected.select("reason", "column", "value").rows() == [verdict]
    assert cleaned.kept["event_id"].to_list() == ["e0", "e2"]


@pytest.mark.parametrize(
    "row",
    [
        {"ip": "203.0.114.9"},
        {"ip": "203.0.113.9, 198.51.100.1"},
        {"ip": "not an address"},
        {"ip": None},
        {"email": "jo@shop.example.org"},
        {"email": "shop.example@mail.example"},
        {"email": "contest+1@mail.example"},
        {"email": None, "role": None},
        {"role": "administrator"},
    ],
)
def test_customers_are_not_taken_for_staff(row: dict[str, str | None]) -> None:
    assert filter_staff(events(row), RULES).kept.height == 1


def test_without_rules_only_roles_count() -> None:
    assert filter_staff(events({"ip": "203.0.113.9"}, {"role": "staff"}), StaffSettings()).kept["event_id"].to_list() == ["e0"]


def test_wrong_test_account_pattern_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cleaning\.staff\.test_account_pattern"):
        filter_staff(events({}), StaffSettings(test_account_pattern="(?=x)"))


def test_empty_day_keeps_the_schema() -> None:
    assert filter_staff(events({}).clear(), RULES).kept.schema == SCHEMA
