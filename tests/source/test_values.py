"""Rows from real databases arrive as delivered: types, windows, order."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa
from support.databases import DAY, make, read

from recsys_ops.errors import DataError


def test_rows_arrive_as_delivered_within_the_window(database_url: str) -> None:
    url = make(
        database_url,
        "CREATE TABLE events (id bigint, at timestamptz, note text, price numeric(10,2))",
        "INSERT INTO events VALUES (9007199254740993, '2026-01-01 23:30-01', 'x', 1.10)",
        "INSERT INTO events VALUES (2, '2026-01-02Z', NULL, NULL), (3, '2026-01-03Z', '', 0)",
    )
    frame = read(url, "SELECT * FROM events WHERE at >= :start AND at < :end ORDER BY at", **DAY)
    assert frame["id"].to_list() == [2, 9007199254740993]
    assert frame["at"].to_list()[1] == datetime(2026, 1, 2, 0, 30, tzinfo=UTC)
    assert frame["price"].to_list() == [None, Decimal("1.10")]


POSTGRESQL_VALUES = {
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "'10.0.0.5'::inet": "10.0.0.5",
    "'10.0.0.5/8'::inet": "10.0.0.5/8",
    "'10.0.0.0/8'::cidr": "10.0.0.0/8",
    "'{\"b\":  1}'::json": '{"b":  1}',
    "'{\"a\": 1}'::jsonb": '{"a": 1}',
    "'{1,NULL}'::int[]": "[1,null]",
    "'{a,\"b,c\"}'::text[]": '["a","b,c"]',
    "interval '1 day 2 hours'": "1 day 02:00:00",
    "'\\x00ff'::bytea": "00ff",
    "12345.50::numeric": "12345.5",
    "12345.50::numeric(12,4)": Decimal("12345.5000"),
    "12345678901234567890.12::numeric(60,2)": Decimal("12345678901234567890.12"),
    "'NaN'::numeric(12,4)": "NaN",
    "100::numeric": "100",
    "100.0::numeric": "100",
    "0.00000000000000000033::numeric": "0.00000000000000000033",
    "'NaN'::numeric": "NaN",
    "9223372036854775807::bigint": 9223372036854775807,
    "1.1::real": 1.1,
    "0.1::float8": 0.1,
    "16777216::real": 16777216.0,
    "true": 1,
    "B'101'": 5,
    "'{2026-01-02 03:04:05}'::timestamp[]": '["2026-01-02T03:04:05"]',
    "int4range(1, 5)": "[1,5)",
    "'x'::char(3)": "x  ",
    "''::text": "",
    "NULL::inet": None,
    "NULL": None,
    "E'100% \"a\"\\n,😀'": '100% "a"\n,😀',
    "date '2026-01-02'": date(2026, 1, 2),
    "timestamptz '2026-01-02 01:00:00.000001+01'": datetime(2026, 1, 2, 0, 0, 0, 1, tzinfo=UTC),
    "timestamp '2026-03-29 02:30:00.123456'": datetime.fromisoformat("2026-03-29 02:30:00.123456"),
    "'infinity'::timestamptz::text": "infinity",
}


def test_no_value_of_postgresql_is_changed(database_url: str) -> None:
    shop = sa.make_url(database_url).database
    make(  # settings of an account or a database must not change how values are written
        database_url,
        f"ALTER DATABASE {shop} SET extra_float_digits = -9",
        f"ALTER DATABASE {shop} SET DateStyle = 'German'",
        f"ALTER DATABASE {shop} SET IntervalStyle = 'iso_8601'",
        f"ALTER DATABASE {shop} SET client_encoding = 'LATIN1'",
    )
    columns = ", ".join(
        f'{written} AS "{number}"' for number, written in enumerate(POSTGRESQL_VALUES)
    )
    frame = read(database_url, f"SELECT {columns};")
    assert list(frame.row(0)) == list(POSTGRESQL_VALUES.values())


def test_a_shops_own_types_arrive_as_text_domains_as_their_base_type(
    database_url: str,
) -> None:
    url = make(
        database_url,
        "CREATE TYPE step AS ENUM ('view', 'cart')",
        "CREATE DOMAIN number AS bigint",
        'CREATE TABLE e ("my ""Step""" step, n number, steps step[])',
        "INSERT INTO e VALUES ('cart', 7, '{view,cart}')",
    )
    assert read(url, "SELECT * FROM e").to_dicts() == [
        {'my "Step"': "cart", "n": 7, "steps": '["view","cart"]'}
    ]


def test_an_infinite_time_is_refused_with_its_column(database_url: str) -> None:
    with pytest.raises(DataError, match="column until holds an infinite time"):
        read(database_url, "SELECT 'infinity'::timestamptz AS until")


MARIADB_TABLE = """CREATE TABLE odd (id int, big bigint unsigned, flag tinyint(1),
    price decimal(30,10), ratio double,
    at datetime(6), stamp timestamp(6) NULL, day date, span time, raw binary(2), kind enum('a','b'),
    name varchar(20) CHARSET latin1, note text)"""


MARIADB_ROW = r"""INSERT INTO odd VALUES (1, 18446744073709551615, 1,
    12345678901234567890.0123456789, 0.1,
    '2026-03-29 02:30:00.123456', '2026-03-29 02:30:00.123456', '2026-01-02', '-100:00:01',
    x'00ff', 'a', 'café',
    'a\0"b",\n😀')"""


def test_no_value_of_mariadb_is_changed(mariadb_url: sa.URL) -> None:
    url = make(
        mariadb_url,
        "SET time_zone = '+00:00'",
        MARIADB_TABLE,
        MARIADB_ROW,
        "INSERT INTO odd (id, note, name) VALUES (2, '', NULL)",
    )
    one, two = read(url, "SELECT * FROM odd ORDER BY id DESC").rows()[::-1]
    assert one[:5] == (1, 18446744073709551615, 1, Decimal("12345678901234567890.0123456789"), 0.1)
    assert one[5:9] == (
        "2026-03-29 02:30:00.123456",
        "2026-03-29 02:30:00.123456+00:00",
        "2026-01-02",
        "-100:00:01",
    )
    assert one[9:] == ("00ff", "a", "café", 'a\0"b",\n😀')
    assert two == (2, *[None] * 11, "")


def test_a_float_that_mariadb_has_rounded_is_refused_with_its_cure(mariadb_url: sa.URL) -> None:
    url = make(
        mariadb_url,
        "CREATE TABLE e (id float, price float(12,2))",
        "INSERT INTO e VALUES (NULL, 1234567.25), (999999, 1), (0.125, 2)",
    )
    assert read(url, "SELECT * FROM e ORDER BY price").rows() == [
        (999999.0, 1.0),
        (0.125, 2.0),
        (None, 1234567.25),
    ]
    make(url, "INSERT INTO e VALUES (1234567, 3)")  # written as 1234570, the id of another one
    with pytest.raises(DataError, match=r"column id is a FLOAT, .* write CAST"):
        read(url, "SELECT * FROM e")
    assert read(url, "SELECT CAST(id AS DOUBLE) AS id FROM e")["id"].max() == 1234567.0


def test_mariadbs_zero_dates_do_not_become_nulls(mariadb_url: sa.URL) -> None:
    url = make(
        mariadb_url, "SET sql_mode = ''", MARIADB_TABLE, "INSERT INTO odd (at, day) VALUES (0, 0)"
    )
    assert read(url, "SELECT at, day FROM odd").row(0) == (
        "0000-00-00 00:00:00.000000",
        "0000-00-00",
    )


def test_mariadbs_window_is_cut_in_utc_whatever_the_servers_zone(mariadb_url: sa.URL) -> None:
    url = make(
        mariadb_url,
        "SET GLOBAL time_zone = '-08:00'",
        "SET time_zone = '+00:00'",
        "CREATE TABLE e (id int, at timestamp(6))",
        "INSERT INTO e VALUES (1, '2026-01-01 23:59:59.999999'), "
        "(2, '2026-01-02'), (3, '2026-01-03')",
    )
    assert read(url, "SELECT * FROM e WHERE at >= :start AND at < :end", **DAY).rows() == [
        (2, "2026-01-02 00:00:00.000000+00:00")
    ]
    make(url, "SET GLOBAL time_zone = 'SYSTEM'")


def test_sqlites_mixed_columns_arrive_as_text_with_nothing_lost(sqlite_url: sa.URL) -> None:
    url = make(
        sqlite_url,
        "CREATE TABLE e (id, n)",
        "INSERT INTO e VALUES (1, 1), ('x7', NULL), (2.5, 2), (NULL, 3), (1000.0, 4)",
    )
    frame = read(url, "SELECT * FROM e")
    assert frame["id"].to_list() == ["1", "x7", "2.5", None, "1000"]
    assert frame["n"].to_list() == [1, None, 2, 3, 4]


def test_sqlite_cuts_the_window_by_text(sqlite_url: sa.URL) -> None:
    url = make(
        sqlite_url,
        "CREATE TABLE e (at)",
        "INSERT INTO e VALUES ('2026-01-01 23:59:59'), ('2026-01-02 00:00:00')",
    )
    assert read(url, "SELECT * FROM e WHERE at >= :start AND at < :end", **DAY).rows() == [
        ("2026-01-02 00:00:00",)
    ]


def test_more_rows_than_the_driver_holds_at_once_arrive_in_order(database_url: str) -> None:
    frame = read(
        database_url,
        "SELECT n, CASE WHEN n > 60000 THEN 'late' END AS note "
        "FROM generate_series(1, 500000) AS n ORDER BY n",
    )
    assert frame["n"].to_list() == list(range(1, 500_001))
    assert frame["note"].null_count() == 60_000


def test_more_rows_than_mariadbs_driver_holds_at_once_arrive_in_order(mariadb_url: sa.URL) -> None:
    frame = read(
        mariadb_url,
        "SELECT seq AS n, CASE WHEN seq > 60000 THEN 'late' END AS note "
        "FROM seq_1_to_100000 ORDER BY seq",
    )
    assert frame["n"].to_list() == list(range(1, 100_001))
    assert frame["note"].null_count() == 60_000


def test_an_empty_window_keeps_the_columns(
    database_url: str, mariadb_url: sa.URL, sqlite_url: sa.URL
) -> None:
    for empty in (database_url, mariadb_url, sqlite_url):
        url = make(empty, "CREATE TABLE events (id bigint, note varchar(9))")
        assert read(url, "SELECT * FROM events").columns == ["id", "note"]
