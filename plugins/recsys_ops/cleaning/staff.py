"""Staff and their test accounts."""

from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET6, inet_pton

import numpy as np
import polars as pl

from recsys_ops.cleaning.result import Cleaned, split_rejected
from recsys_ops.errors import SettingsError
from recsys_ops.settings import StaffSettings


def filter_staff(events: pl.LazyFrame, settings: StaffSettings) -> Cleaned:
    """Reject the events of staff and of test accounts.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows with the
        distinct accounts and addresses.

    The reason is the first that applies: ``staff_account`` (a listed user id), ``staff_role``,
    ``staff_email`` (a listed domain, not its subdomains), ``staff_network`` (an address in a listed
    network; text that is no address is in none), ``test_account`` (the e-mail address contains the
    pattern). Case does not matter in roles, domains and the pattern.

    Raises SettingsError when `test_account_pattern` is not a regular expression.
    """
    columns = ("user_id", "role", "email", "ip")
    accounts = events.select(columns).unique().collect(engine="streaming")
    user_ids, roles, emails, ips = (accounts[name].drop_nulls().unique() for name in columns)
    lower_emails = emails.str.to_lowercase()
    checks = {
        ("staff_account", "user_id"): user_ids.filter(user_ids.is_in(settings.user_ids)),
        ("staff_role", "role"): roles.filter(
            roles.str.to_lowercase().is_in([name.lower() for name in settings.roles])
        ),
        ("staff_email", "email"): emails.filter(
            lower_emails.str.extract("@([^@]*)$").is_in(
                [name.lower() for name in settings.email_domains]
            )
        ),
        ("staff_network", "ip"): _inside(ips, settings.networks),
    }
    if settings.test_account_pattern is not None:
        try:
            checks["test_account", "email"] = emails.filter(
                lower_emails.str.contains(f"(?i){settings.test_account_pattern}")
            )
        except pl.exceptions.ComputeError as error:
            pattern = settings.test_account_pattern
            raise SettingsError(
                f"cleaning.staff.test_account_pattern: {pattern!r}: {error}"
            ) from error
    holds = [
        (code, name, pl.col(name).is_in(values.implode()))
        for (code, name), values in checks.items()
    ]
    rejections = (
        events.filter(pl.any_horizontal(check for *_, check in holds))
        .select(
            "row",
            reason=pl.coalesce(pl.when(check).then(pl.lit(code)) for code, _, check in holds),
            column=pl.coalesce(pl.when(check).then(pl.lit(name)) for _, name, check in holds),
            value=pl.coalesce(pl.when(check).then(name) for _, name, check in holds),
        )
        .collect(engine="streaming")
    )
    return split_rejected(events, rejections, {})


def _inside(ips: pl.Series, networks: tuple[IPv4Network | IPv6Network, ...]) -> pl.Series:
    """The distinct addresses in a network, compared as 128 bits; IPv4 is mapped into IPv6."""
    packed = {text: bits for text in ips if (bits := _packed(text))} if networks else {}
    addresses = np.frombuffer(b"".join(packed.values()), ">u8").reshape(-1, 2)
    inside = np.zeros(len(addresses), bool)
    for network in map(_as_ipv6, networks):
        mask, first = (
            np.frombuffer(end.packed, ">u8") for end in (network.netmask, network.network_address)
        )
        inside |= ((addresses & mask) == first).all(axis=1)
    return pl.Series(list(packed), dtype=pl.String).filter(pl.Series(inside))


def _packed(text: str) -> bytes | None:
    """An address as 16 bytes; None for text that is no address."""
    address = text.partition("/")[0]  # PostgreSQL's inet, cast to text, ends in /32
    try:
        return inet_pton(AF_INET6, address if ":" in address else f"::ffff:{address}")
    except (OSError, ValueError):
        return None


def _as_ipv6(network: IPv4Network | IPv6Network) -> IPv6Network:
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
