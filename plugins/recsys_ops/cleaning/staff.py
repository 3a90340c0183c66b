"""The people who work here, and the accounts they test with."""

from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET6, inet_pton

import numpy as np
import polars as pl

from recsys_ops.cleaning.cleaned import Cleaned, take_out
from recsys_ops.errors import SettingsError
from recsys_ops.settings import StaffSettings


def filter_staff(events: pl.LazyFrame, settings: StaffSettings) -> Cleaned:
    """Reject the events of staff and of test accounts.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows with the distinct addresses.
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
        ("staff_network", "ip", pl.col("ip").is_in(_inside(events, settings.networks).implode())),
    ]
    if settings.test_account_pattern is not None:
        checks.append(("test_account", "email", email.str.contains(f"(?i){settings.test_account_pattern}")))
    marks = events.select(
        "row",
        reason=pl.coalesce(pl.when(check).then(pl.lit(code)) for code, _, check in checks),
        column=pl.coalesce(pl.when(check).then(pl.lit(name)) for _, name, check in checks),
        value=pl.coalesce(pl.when(check).then(name) for _, name, check in checks),
    ).filter(pl.col("reason").is_not_null())
    try:
        return take_out(events, marks.collect(engine="streaming"), {})
    except pl.exceptions.ComputeError as error:
        raise SettingsError(f"cleaning.staff.test_account_pattern: {settings.test_account_pattern!r}: {error}") from error


def _inside(events: pl.LazyFrame, networks: tuple[IPv4Network | IPv6Network, ...]) -> pl.Series:
    """The distinct addresses that lie in a network. All are compared as 128 bits, IPv4 as IPv6 maps it."""
    if not networks:
        return pl.Series(dtype=pl.String)
    ips = events.select(pl.col("ip").drop_nulls().unique()).collect(engine="streaming")["ip"]
    packed = {text: bits for text in ips if (bits := _packed(text))}
    addresses = np.frombuffer(b"".join(packed.values()), ">u8").reshape(-1, 2)
    inside = np.zeros(len(addresses), bool)
    for network in map(_as_ipv6, networks):
        mask, first = (np.frombuffer(end.packed, ">u8") for end in (network.netmask, network.network_address))
        inside |= ((addresses & mask) == first).all(axis=1)
    return pl.Series(list(packed), dtype=pl.String).filter(pl.Series(inside))


def _packed(text: str) -> bytes | None:
    """An address as 16 bytes; None for any other text."""
    address = text.partition("/")[0]  # PostgreSQL's inet, cast to text, ends in /32
    try:
        return inet_pton(AF_INET6, address if ":" in address else f"::ffff:{address}")
    except (OSError, ValueError):
        return None


def _as_ipv6(network: IPv4Network | IPv6Network) -> IPv6Network:
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
