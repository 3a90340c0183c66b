"""Addresses, compared with Python's ipaddress."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ops.cleaning.addresses import read_addresses

IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str)
PORT = st.integers(0, 65535)


def read(*texts: str) -> list[int | None]:
    """The addresses as IPv6 in one number each; None for a text that is no address."""
    frame = read_addresses(pl.Series(texts, dtype=pl.String))
    assert frame["text"].to_list() == list(texts)
    return [
        None if high is None else high << 64 | low
        for high, low in frame.select("high", "low").iter_rows()
    ]


def number(text: str) -> int:
    address = ip_address(text)
    mapped = 0xFFFF << 32 if isinstance(address, IPv4Address) else 0
    return mapped | int(address)


def each(write: Callable[[str, int], str], address: str, port: int) -> tuple[list[int | None], int]:
    return read(write(address, port)), number(address)


@pytest.mark.parametrize(
    "write",
    [
        lambda ip, port: ip,
        lambda ip, port: f"[{ip}]",
        lambda ip, port: f"[{ip}]:{port}",
        lambda ip, port: f'"{ip}"',
        lambda ip, port: f" '{ip}' ",
        lambda ip, port: f"{ip}, 10.0.0.1, 10.0.0.2",
        lambda ip, port: f'"[{ip}]:{port}, 10.0.0.1"',
        lambda ip, port: f'for="[{ip}]:{port}";proto=https;by=10.0.0.1',
        lambda ip, port: f"{ip}/128",
    ],
)
@given(address=IPV4 | IPV6, port=PORT)
def test_address_is_read_however_it_is_wrapped(
    write: Callable[[str, int], str], address: str, port: int
) -> None:
    found, expected = each(write, address, port)
    assert found == [expected]


@pytest.mark.parametrize(
    "write",
    [
        lambda ip, port: f"{ip}:{port}",
        lambda ip, port: f"{ip}:{port}, 10.0.0.1:80",
        lambda ip, port: f"FOR={ip}:{port}",
        lambda ip, port: f"::ffff:{ip}",
        lambda ip, port: f"::ffff:{ip}:{port}",
        lambda ip, port: str(int(IPv4Address(ip))),
        lambda ip, port: str(int(IPv4Address(ip)) - 2**32) if int(IPv4Address(ip)) >> 31 else ip,
        lambda ip, port: "0x" + IPv4Address(ip).packed.hex(),
        lambda ip, port: "\\x" + IPv4Address(ip).packed.hex(),
    ],
)
@given(address=IPV4, port=PORT)
def test_ipv4_is_read_with_a_port_as_a_number_and_as_bytes(
    write: Callable[[str, int], str], address: str, port: int
) -> None:
    found, expected = each(write, address, port)
    assert found == [expected]


@given(address=IPV6, zone=st.text("abcdef0123456789", min_size=1))
def test_ipv6_is_read_with_a_zone_and_as_bytes(address: str, zone: str) -> None:
    packed = IPv6Address(address).packed.hex()
    texts = f"{address}%{zone}", f"[{address}%{zone}]:443", packed, packed.upper(), f"\\x{packed}"
    assert read(*texts) == [number(address)] * 5


@given(st.lists(IPV4, min_size=1, unique=True))
def test_bytes_of_a_column_are_never_read_as_numbers(addresses: list[str]) -> None:
    packed = [IPv4Address(address).packed.hex() for address in addresses]
    assert read(*packed, "abcdef01")[:-1] == [number(address) for address in addresses]


def test_eight_digits_alone_are_a_number() -> None:
    assert read("16909060", "3405803785") == [number("1.2.3.4"), number("203.0.113.9")]


@given(st.lists(st.text('0123456789abcdefx.:[]%/," -', max_size=24), unique=True))
def test_what_ipaddress_reads_is_read_and_no_text_breaks_the_step(texts: list[str]) -> None:
    for text, found in zip(texts, read(*texts), strict=True):
        try:
            expected = number(text)
        except ValueError:
            continue
        if "%" not in text:
            assert found == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "unknown",
        "203.0.113",
        "203.0.113.009",
        "256.1.1.1",
        "203.0.113.9é",
        "1.2.3.4.5",
        "[203.0.113.9",
        "2001:db8:::1",
        "4294967296",
        "-4294967297",
        "cb0071",
        "a.example:80",
        "unknown, 203.0.113.9",
    ],
)
def test_other_texts_are_no_address(text: str) -> None:
    assert read(text) == [None]
