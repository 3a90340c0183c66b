"""Visitors' addresses, in the ways in which web servers, proxies and databases write them."""

from socket import AF_INET6, inet_pton

import polars as pl

# high and low half of an IPv6 address as numbers; an IPv4 address is mapped: ::ffff:203.0.113.9
HALVES = {"high": pl.UInt64(), "low": pl.UInt64()}
_MAPPED = 0xFFFF << 32

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"^{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}$"
_PREFIXED_BYTES = r"^(?:0x|\\x)([0-9a-fA-F]{8}|[0-9a-fA-F]{32})$"
_NUMBER = "^-?[0-9]{1,10}$"


def read_addresses(texts: pl.Series) -> pl.DataFrame:
    """The addresses that texts hold.

    texts : Series of String, distinct. Read are IPv4 and IPv6, with a port, in brackets, in quotes,
        with a zone (``%eth0``) or a prefix length (``/32``); the first of a forwarded list
        (``client, proxy``, ``for=client;proto=https``); the number that MySQL's INET_ATON makes;
        and the hexadecimal digits of 4 or 16 bytes. Eight digits without a letter are bytes if
        other texts of eight have letters, else a number.

    Returns a DataFrame, (n_texts, 3), ``text``, ``high``, ``low``: the address in IPv6 as two
    numbers of 64 bits, null for a text that is no address.
    """
    text = pl.col("text")
    first = (
        text.str.strip_chars(" \t\"'")
        .str.replace("(?i)^for=", "")
        .str.extract("^([^,;]*)", 1)
        .str.strip_chars(" \t\"'")
    )
    bare = pl.coalesce(
        first.str.extract(r"^\[([^\]]*)\](?::[0-9]{1,5})?$", 1),
        first.str.extract(r"^(.*\.[0-9]{1,3}):[0-9]{1,5}$", 1),
        first,
    )
    address = bare.str.replace("/[0-9]{1,3}$", "").str.replace("%.*$", "")
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_columns(address=address)
    digits = frame["address"].str.extract("^([0-9a-fA-F]{8}|[0-9a-fA-F]{32})$", 1)
    eight_have_letters = ((digits.str.len_bytes() == 8) & digits.str.contains("[a-fA-F]")).any()
    bytes_ = pl.coalesce(
        pl.col("address").str.extract(_PREFIXED_BYTES, 1),
        pl.when(eight_have_letters | ~pl.col("address").str.contains(_NUMBER)).then(digits),
    )
    read = frame.with_columns(bytes_=bytes_, ipv6=_ipv6(frame["address"])).select(
        "text",
        high=pl.coalesce(_hex(pl.col("bytes_"), 0), pl.col("ipv6").struct["high"]),
        low=pl.coalesce(_hex(pl.col("bytes_"), 16), pl.col("ipv6").struct["low"]),
        ipv4=pl.coalesce(_written(), _number(), _hex(pl.col("bytes_"), None)),
    )
    is_ipv4 = pl.col("ipv4").is_not_null()
    return read.select(
        "text",
        high=pl.when(is_ipv4).then(pl.lit(0, pl.UInt64)).otherwise("high"),
        low=pl.when(is_ipv4).then(pl.col("ipv4") + _MAPPED).otherwise("low"),
    )


def _written() -> pl.Expr:
    """IPv4 in its four numbers."""
    parts = pl.col("address").str.extract_groups(_IPV4)
    return pl.sum_horizontal(
        (parts.struct.field(str(n)).cast(pl.UInt64) * 256 ** (4 - n) for n in range(1, 5)),
        ignore_nulls=False,
    )


def _number() -> pl.Expr:
    """IPv4 as one number; below zero where a program took it for a signed one."""
    is_number = pl.col("bytes_").is_null() & pl.col("address").str.contains(_NUMBER)
    number = pl.when(is_number).then("address").cast(pl.Int64)
    number = pl.when(number < 0).then(number + 2**32).otherwise(number)
    return pl.when(number.is_between(0, 2**32 - 1)).then(number).cast(pl.UInt64)


def _hex(digits: pl.Expr, start: int | None) -> pl.Expr:
    """16 of 32 hexadecimal digits as a number, from `start`; None: all of 8 digits."""
    wanted = 8 if start is None else 32
    part = pl.when(digits.str.len_bytes() == wanted).then(digits).str.slice(start or 0, 16)
    return part.str.to_integer(base=16, dtype=pl.UInt64, strict=False)


def _ipv6(addresses: pl.Series) -> pl.Series:
    """The halves of the texts with a colon."""
    halves = [
        None
        if text is None or ":" not in text or (packed := _packed(text)) is None
        else {
            "high": int.from_bytes(packed[:8]),
            "low": int.from_bytes(packed[8:]),
        }
        for text in addresses
    ]
    return pl.Series("ipv6", halves, dtype=pl.Struct(HALVES))


def _packed(text: str) -> bytes | None:
    try:
        return inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return None
