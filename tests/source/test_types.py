"""The same shop gives the same canonical rows from each of the three databases."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl
import pytest
import sqlalchemy as sa
from support.cleaning_rows import CONTRACT_FILE, fixed
from support.databases import make, read

from recsys_ops.cleaning import Contract, load_contract
from recsys_ops.cleaning.contract import TextRule, TimeRule
from recsys_ops.source.catalogue import normalise_catalogue


class Case(NamedTuple):
    """A column's type and a value in PostgreSQL, in MariaDB and in SQLite, and what it becomes."""

    column: str
    postgresql: str
    mariadb: str
    sqlite: str
    value: str
    becomes: Any


UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
BIG = 2**53 + 1
UNSIGNED = str(2**64 - 1)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
CASES = {
    "a bigint id": Case("user_id", "bigint", "bigint", "bigint", f"{BIG}", f"{BIG}"),
    "an unsigned id": Case(
        "user_id", "numeric(20)", "bigint unsigned", "text", f"'{UNSIGNED}'", UNSIGNED
    ),
    "a smallint": Case("quantity", "smallint", "tinyint(1)", "int", "7", 7),
    "a whole decimal": Case("quantity", *["decimal(12,4)"] * 3, "1.0000", 1),
    "an undeclared decimal": Case("quantity", "numeric", "decimal(65,30)", "numeric", "2.000", 2),
    "an id of a decimal": Case("user_id", *["decimal(12,2)"] * 3, "1000.00", "1000"),
    "an id of a decimal without scale": Case("item_id", *["decimal(18)"] * 3, "1000", "1000"),
    "an id of a double": Case("item_id", "float8", "double", "real", "1000", "1000"),
    "a price": Case("value", *["decimal(12,4)"] * 3, "19.9000", 19.9),
    "a float4": Case("value", "real", "float", "real", "1.1", 1.1),
    "a double": Case("value", "float8", "double", "real", "0.1", 0.1),
    "a boolean": Case("role", "boolean", "boolean", "boolean", "true", "1"),
    "a bit": Case("role", "bit(1)", "bit(1)", "int", "1", "1"),
    "bits": Case("role", "bit(8)", "bit(8)", "int", "5", "5"),
    "a date": Case("role", "date", "date", "date", "'2026-01-02'", "2026-01-02"),
    "a time of day": Case("role", "time", "time", "time", "'03:04:05'", "03:04:05"),
    "a time": Case(
        "event_time", "timestamptz", "timestamp(3)", "text", "'2026-03-02 12:00:00+00:00'", NOON
    ),
    "a time without a zone": Case(
        "event_time", "timestamp", "datetime", "datetime", "'2026-03-02 13:00:00'", NOON
    ),
    "a uuid": Case("user_id", "uuid", "uuid", "text", f"'{UUID}'", UUID),
    "an enum": Case("event_type", "step", "enum('view', 'cart')", "text", "'cart'", "cart"),
    "json": Case("role", "json", "json", "json", "'{\"a\":  1}'", '{"a":  1}'),
    "char(n)": Case("user_id", *["char(9)"] * 3, "'x1'", "x1"),
    "an umlaut": Case("role", *["varchar(9)"] * 3, "'Käufer'", "Käufer"),
    "bytes": Case("user_id", "bytea", "varbinary(4)", "blob", "x'00ff'", "00ff"),
}


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database it is."""
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str) -> sa.URL:
    name = {"postgresql": "database_url", "mariadb": "mariadb_url", "sqlite": "sqlite_url"}
    return sa.make_url(request.getfixturevalue(name[database]))


@pytest.fixture(scope="module")
def contract() -> Contract:
    """The shipped contract, for a shop that writes its times in Berlin's zone."""
    shipped = load_contract(CONTRACT_FILE)
    time = TimeRule(type="time", timezone="Europe/Berlin")
    return shipped.model_copy(update={"columns": shipped.columns | {"event_time": time}})


def literal(case: Case, database: str) -> str:
    """The value as this database's SQL writes it."""
    if case.value.startswith("x'") and database == "postgresql":
        return f"'\\x{case.value[2:]}"
    if "bit" in case.postgresql and database == "postgresql":
        return f"CAST({case.value} AS {case.postgresql})"
    if case.postgresql == "timestamptz" and database == "mariadb":
        return case.value.replace("+00:00", "")
    return case.value


def test_a_value_of_every_type_becomes_the_same(
    url: sa.URL, database: str, contract: Contract
) -> None:
    types = ", ".join(
        f"c{n} {getattr(case, database)}{' NULL' if 'timestamp' in case.mariadb else ''}"
        for n, case in enumerate(CASES.values())
    )
    values = ", ".join(literal(case, database) for case in CASES.values())
    make(
        url,
        *(["CREATE TYPE step AS ENUM ('view', 'cart')"] if database == "postgresql" else []),
        *(["SET time_zone = '+00:00'"] if database == "mariadb" else []),
        f"CREATE TABLE odd (n int, {types})",
        f"INSERT INTO odd VALUES (1, {values})",
        "INSERT INTO odd (n) VALUES (2)",
    )
    delivered = read(url, "SELECT * FROM odd ORDER BY n")
    became = {
        name: canonical(case.column, delivered[f"c{n}"], contract)
        for n, (name, case) in enumerate(CASES.items())
    }
    assert became == {name: case.becomes for name, case in CASES.items()}


def canonical(column: str, values: pl.Series, contract: Contract) -> Any:
    """What the first value becomes, the second being null; or the reason of its rejection."""
    cleaned = fixed(column, values, contract)
    assert values[1] is None
    return (cleaned.kept[column] if cleaned.kept.height else cleaned.rejected["reason"])[0]


@pytest.mark.parametrize("type_", ["float8", "decimal(12,4)", "varchar(9)", "bigint"])
def test_ids_of_the_catalogue_are_those_of_the_events(
    url: sa.URL, database: str, contract: Contract, type_: str
) -> None:
    """Both were floats: the history had `1000`, the catalogue `1000.0`, and no list was made."""
    number = type_.replace("float8", {"postgresql": type_}.get(database, "double"))
    make(
        url,
        f"CREATE TABLE e (item_id {number})",
        "CREATE TABLE p (item_id decimal(9,2), title varchar(9))",
        "INSERT INTO e VALUES (1000)",
        "INSERT INTO p VALUES (1000, 'T')",
    )
    of_event = fixed("item_id", read(url, "SELECT * FROM e")["item_id"], contract)
    items = read(
        url,
        "SELECT p.*, NULL AS category, 1.5 AS price, 2.0 AS stock, 'published' AS status FROM p",
    )
    of_catalogue, _ = normalise_catalogue(items, TextRule(type="id"))
    assert of_event.kept["item_id"].to_list() == of_catalogue["item_id"].to_list() == ["1000"]


def test_decimals_are_decimals_where_they_have_a_scale(database_url: str) -> None:
    sql = "SELECT 1.5::numeric(12,4) AS a, 1.50::numeric AS b, 1.5::numeric(60,2) AS c"
    assert read(database_url, sql).row(0) == (Decimal("1.5000"), "1.5", Decimal("1.50"))
