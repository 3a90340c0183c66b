"""Staff and their test accounts."""

from ipaddress import IPv4Network, IPv6Address, IPv6Network

import polars as pl

from recsys_ops.cleaning.addresses import read_addresses
from recsys_ops.cleaning.parsing import NO_VALUE
from recsys_ops.cleaning.result import Cleaned, split_rejected
from recsys_ops.errors import SettingsError
from recsys_ops.settings import StaffSettings


def filter_staff(events: pl.LazyFrame, settings: StaffSettings) -> Cleaned:
    """Reject the events of staff and of test accounts.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows with the
        distinct accounts and addresses.

    The reason is the first that applies: ``staff_account`` (a listed user id), ``staff_role``,
    ``staff_email`` (a listed domain, not its subdomains), ``staff_network`` (an address in a listed
    network), ``test_account`` (the e-mail address contains the pattern). Case does not matter in
    roles, domains and the pattern.

    Where networks are set, texts that are no address are in none of them. The note
    ``no_addresses`` counts their rows, by what such a text looks like: ``9.9.9`` for 203.0.113.

    Raises SettingsError when `test_account_pattern` is not a regular expression.
    """
    columns = ("user_id", "role", "email", "ip")
    accounts = events.select(columns).unique().collect(engine="streaming")
    user_ids, roles, emails, ips = (accounts[name].drop_nulls().unique() for name in columns)
    inside, unreadable = _inside(ips, settings.networks)
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
        ("staff_network", "ip"): inside,
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
    no_addresses = _forms(events, unreadable)
    warnings: tuple[str, ...] = ()
    if no_addresses:
        forms = ", ".join(f"{form} ({rows:,})" for form, rows in no_addresses.items())
        warnings = (
            f"the column ip holds rows whose text is no address, such as {forms}: "
            "cleaning.staff.networks cannot find staff among them",
        )
    return split_rejected(events, rejections, {"no_addresses": no_addresses}, warnings)


def _inside(
    ips: pl.Series, networks: tuple[IPv4Network | IPv6Network, ...]
) -> tuple[pl.Series, pl.Series]:
    """The distinct texts whose address is in a network, and those that are no address."""
    if not networks:
        return ips.clear(), ips.clear()
    addresses = read_addresses(ips.filter(~ips.str.contains(NO_VALUE)))
    inside = addresses.filter(
        pl.any_horizontal(_contains(network) for network in map(_as_ipv6, networks))
    )
    return inside["text"], addresses.filter(pl.col("low").is_null())["text"]


def _contains(network: IPv6Network) -> pl.Expr:
    """Whether an address is in a network: both halves, 64 bits each, without the host's bits."""
    halves = {"high": 64, "low": 0}
    return pl.all_horizontal(
        pl.col(half).and_(pl.lit(_half(network.netmask, shift), pl.UInt64))
        == pl.lit(_half(network.network_address, shift), pl.UInt64)
        for half, shift in halves.items()
    )


def _half(address: IPv6Address, shift: int) -> int:
    return (int(address) >> shift) & (2**64 - 1)


def _forms(events: pl.LazyFrame, texts: pl.Series) -> dict[str, int]:
    """The three commonest forms of these texts, without their letters and digits, with their rows.

    An address that cannot be read may still be somebody's, so it is not shown itself.
    """
    if texts.is_empty():
        return {}
    form = (
        pl.col("ip")
        .str.replace_all(r"\p{N}+", "9")
        .str.replace_all(r"\p{L}+", "a")
        .str.slice(0, 20)
    )
    return dict(
        events.filter(pl.col("ip").is_in(texts.implode()))
        .group_by(form=form)
        .agg(rows=pl.len())
        .sort(["rows", "form"], descending=[True, False])
        .head(3)
        .collect(engine="streaming")
        .iter_rows()
    )


def _as_ipv6(network: IPv4Network | IPv6Network) -> IPv6Network:
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
