"""The people who work here, and the accounts they test with."""

import ipaddress
from ipaddress import IPv4Network, IPv6Network

import polars as pl

from recsys_ops.cleaning.cleaned import Cleaned, split
from recsys_ops.errors import SettingsError
from recsys_ops.settings import StaffSettings


def filter_staff(frame: pl.DataFrame, settings: StaffSettings) -> Cleaned:
    """Reject the events of staff and of test accounts.

    frame : DataFrame, (n_rows, canonical event frame).
    The first that holds: ``staff_account`` (a listed user id), ``staff_role``, ``staff_email`` (a listed domain itself, no
    subdomain), ``staff_network`` (an address in a listed network; a text that is no address is in none), ``test_account`` (the
    pattern is found in the e-mail address). Roles, domains and the pattern ignore case.

    Raises SettingsError when `test_account_pattern` is not a regular expression.
    """
    role, email = pl.col("role").str.to_lowercase(), pl.col("email").str.to_lowercase()
    checks = [
        ("staff_account", "user_id", pl.col("user_id").is_in(settings.user_ids)),
        ("staff_role", "role", role.is_in([name.lower() for name in settings.roles])),
        ("staff_email", "email", email.str.extract("@([^@]*)$").is_in([name.lower() for name in settings.email_domains])),
        ("staff_network", "ip", pl.col("ip").is_in(_inside(frame["ip"], settings.networks))),
    ]
    if settings.test_account_pattern is not None:
        checks.append(("test_account", "email", email.str.contains(f"(?i){settings.test_account_pattern}")))
    nothing = pl.lit(None, pl.String)
    reason, column, value = nothing, nothing, nothing
    for code, name, check in reversed(checks):
        reason = pl.when(check).then(pl.lit(code)).otherwise(reason)
        column = pl.when(check).then(pl.lit(name)).otherwise(column)
        value = pl.when(check).then(name).otherwise(value)
    try:
        marks = frame.select(reason=reason, column=column, value=value)
    except pl.exceptions.ComputeError as error:
        raise SettingsError(f"cleaning.staff.test_account_pattern: {settings.test_account_pattern!r}: {error}") from error
    return split(frame, marks)


def _inside(ips: pl.Series, networks: tuple[IPv4Network | IPv6Network, ...]) -> list[str]:
    """The distinct addresses that lie in a network."""
    if not networks:
        return []
    return [text for text in ips.drop_nulls().unique() if _is_inside(text, networks)]


def _is_inside(text: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        address = ipaddress.ip_interface(text).ip  # PostgreSQL's inet, cast to text, ends in /32
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in network for network in networks)
