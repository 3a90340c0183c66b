"""Addresses of visitors, from the databases' own types to the filter for staff."""

import polars as pl
import sqlalchemy as sa
from support.cleaning_rows import events
from support.databases import read

from recsys_ops.cleaning import filter_staff
from recsys_ops.cleaning.parsing import as_text
from recsys_ops.settings import StaffSettings

OFFICE = StaffSettings(networks=["203.0.113.0/24", "2001:db8::/32"])  # type: ignore[arg-type]


def staff_among(url: str | sa.URL, *addresses: str) -> list[bool]:
    """For each SQL expression whether its value is an address of the office."""
    return [
        filter_staff(with_address(read(url, f"SELECT {address} AS ip")), OFFICE)
        .kept.collect()
        .is_empty()
        for address in addresses
    ]


def with_address(delivered: pl.DataFrame) -> pl.LazyFrame:
    ip = delivered.select(as_text("ip", delivered.schema["ip"]))["ip"]
    return events({}).with_columns(ip).with_row_index("row").lazy()


def test_addresses_of_every_type_are_read(database_url: str, mariadb_url: sa.URL) -> None:
    assert staff_among(
        database_url,
        "'203.0.113.9'::inet",
        r"'\xcb007109'::bytea",
        "3405803785",
        "'192.0.2.1'::inet",
    ) == [True, True, True, False]
    assert staff_among(
        mariadb_url,
        "INET_ATON('203.0.113.9')",
        "INET6_ATON('203.0.113.9')",
        "INET6_ATON('2001:db8::7')",
        "CAST('2001:db8::7' AS INET6)",
        "INET6_ATON('2001:db9::7')",
    ) == [True, True, True, True, False]
