"""Text of any encoding arrives as it is, or the column and the row that are broken are named."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import make, read

from recsys_ops.errors import DataError
from recsys_ops.source.url import sqlalchemy_url

# two characters that, as bytes of LATIN1, are also two of UTF-8: `ü` and `£5` were read
MISREAD = "Ã¼ Â£5"


@pytest.fixture
def encoded(request: pytest.FixtureRequest, postgres_server: sa.URL) -> sa.URL:
    """A PostgreSQL database of the encoding that the test names."""
    name = f"shop_{request.param.lower()}_{request.node.name.partition('[')[0]}"
    make_database = (
        f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0 LOCALE 'C'"
    )
    with sa.create_engine(
        postgres_server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    ).connect() as connection:
        connection.exec_driver_sql(make_database)
    return postgres_server.set(database=name).update_query_dict({"client_encoding": "UTF8"})


def of_bytes(hexadecimal: str) -> str:
    """An INSERT's value: these bytes as text of the database, without any conversion."""
    return f"convert_from('\\x{hexadecimal}', getdatabaseencoding())"


@pytest.mark.parametrize("encoded", ["LATIN1", "WIN1252", "UTF8"], indirect=True)
def test_text_of_postgresql_is_converted_by_its_server(encoded: sa.URL) -> None:
    url = make(
        encoded,
        'CREATE TABLE e (note text, "Größe" varchar(20))',
        f"INSERT INTO e VALUES ('{MISREAD}', 'Möbel')",
    )
    expected = [{"note": MISREAD, "Größe": "Möbel"}]
    for client in ("UTF8", "LATIN1", "SQL_ASCII"):
        frame = read(
            url.update_query_dict({"client_encoding": client}),
            "SELECT * FROM e WHERE \"Größe\" = 'Möbel'",
        )
        assert frame.to_dicts() == expected, client


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_text_of_a_database_without_an_encoding_is_utf8_or_named(encoded: sa.URL) -> None:
    url = make(
        encoded,
        "CREATE TABLE e (id int, title text, note text)",
        f"INSERT INTO e VALUES (1, {of_bytes('c3bc')}, 'plain'), (2, NULL, {of_bytes('fc')})",
    )
    assert read(url, "SELECT title, 'ü' AS same FROM e WHERE id = 1").row(0) == ("ü", "ü")
    with pytest.raises(
        DataError, match="column note holds text that is not UTF-8, first in row 2 of a query"
    ) as error:
        read(url, "SELECT * FROM e ORDER BY id")
    assert "convert it in include/sql" in str(error.value)
    recipe = "convert_from(convert(textsend(note), 'LATIN1', 'UTF8'), 'SQL_ASCII')"
    assert read(url, f"SELECT {recipe} AS note FROM e WHERE id = 2").item() == "ü"


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_a_broken_text_in_a_late_batch_is_found(encoded: sa.URL) -> None:
    broken = f"CASE n WHEN 250000 THEN {of_bytes('fc')} ELSE repeat('x', 40) END"
    with pytest.raises(DataError, match=r"column note .* first in row 250,000 of"):
        read(encoded, f"SELECT n, {broken} AS note FROM generate_series(1, 300000) AS n")


@pytest.mark.parametrize("encoded", ["WIN1252"], indirect=True)
def test_a_character_that_utf8_does_not_have_is_an_error(encoded: sa.URL) -> None:
    url = make(encoded, "CREATE TABLE e (note text)", f"INSERT INTO e VALUES ({of_bytes('81')})")
    with pytest.raises(DataError, match='0x81 in encoding "WIN1252" has no equivalent'):
        read(url, "SELECT * FROM e")


@pytest.mark.parametrize("charset", ["latin1", "cp1250", "utf8mb3", "utf16", "sjis"])
def test_text_of_mariadb_is_converted_by_its_server(mariadb_url: sa.URL, charset: str) -> None:
    text = "テスト" if charset == "sjis" else "Möbel"
    url = make(
        mariadb_url,
        f"CREATE TABLE e (note varchar(20) CHARACTER SET {charset})",
        f"INSERT INTO e VALUES ('{text}')",
    )
    assert read(url, f"SELECT note FROM e WHERE note = '{text}'").item() == text


def test_mariadbs_latin1_is_not_taken_for_utf8(mariadb_url: sa.URL) -> None:
    url = make(
        mariadb_url,
        "CREATE TABLE e (note varchar(20) CHARACTER SET latin1) CHARACTER SET latin1",
        f"INSERT INTO e VALUES ('{MISREAD} €')",
        "SET GLOBAL init_connect = 'SET NAMES latin1'",
        "CREATE USER reader@'%' IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {mariadb_url.database}.* TO reader@'%'",
    )
    try:
        # init_connect is not executed for root
        assert read(url.set(username="reader", password="pw"), "SELECT * FROM e").item() == (
            f"{MISREAD} €"
        )
    finally:
        make(url, "SET GLOBAL init_connect = ''", "DROP USER reader@'%'")


def test_broken_text_of_sqlite_is_named_with_its_column_and_row(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE e (id, note)")
        connection.executemany("INSERT INTO e VALUES (?, 'ü')", [(n,) for n in range(30_000)])
        connection.execute("UPDATE e SET note = CAST(x'4dfc' AS TEXT) WHERE id = 25000")
    url = sqlalchemy_url("sqlite", host=str(file))
    assert read(url, "SELECT note FROM e WHERE id < 9")["note"].to_list() == ["ü"] * 9
    with pytest.raises(DataError, match=r"column note .* not UTF-8, first in row 25,001 of"):
        read(url, "SELECT * FROM e ORDER BY id")
