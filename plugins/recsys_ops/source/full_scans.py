"""Full scans: whether a query reads a whole large table, by the database's own plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from recsys_ops.errors import DataError
from recsys_ops.source.database import render_sql
from recsys_ops.source.session import begin_read_only, bind_times, database_session
from recsys_ops.source.sql import as_query

LARGE = 100_000


@dataclass(frozen=True)
class FullScan:
    """A table that the query reads as a whole.

    rows : about how many it has.
    advice : the statement that would make the scan unnecessary.
    """

    table: str
    rows: int
    advice: str


def full_scans(
    url: sa.URL, sql: str, parameters: Mapping[str, datetime], *, timeout_s: int
) -> list[FullScan]:
    """The tables of more than 100,000 rows that the query would read as a whole.

    In PostgreSQL only scans that are filtered by a parameter count, in other databases all. Returns
    an empty list when the database cannot explain the query: an extract must not fail for this.
    """
    try:
        with database_session(url, timeout_s) as connection:
            begin_read_only(connection, timeout_s)
            match url.get_backend_name():
                case "postgresql":
                    return _postgresql(connection, sql, parameters)
                case "sqlite":
                    return _sqlite(connection, sql, bind_times(url, parameters))
                case _:
                    return _mysql(connection, sql, bind_times(url, parameters))
    except (sa.exc.SQLAlchemyError, psycopg.Error, DataError, ImportError):
        return []


def _postgresql(
    connection: sa.Connection, sql: str, parameters: Mapping[str, datetime]
) -> list[FullScan]:
    driver: Any = connection.connection.driver_connection
    plan = driver.execute(
        f"EXPLAIN (FORMAT JSON, VERBOSE) {render_sql(sql, parameters)}"
    ).fetchone()[0][0]["Plan"]
    scans = []
    for node in _nodes(plan):
        condition = node.get("Filter", "")
        if node["Node Type"] != "Seq Scan" or not any(
            f"{moment:%Y-%m-%d %H:%M:%S}" in condition for moment in parameters.values()
        ):
            continue
        table = f'"{node["Schema"]}"."{node["Relation Name"]}"'
        rows = driver.execute(
            "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [table]
        ).fetchone()[0]
        if rows > LARGE:
            column = re.search(r'(?:\w+\.)?("[^"]+"|\w+) >=? ', condition)
            scans.append(_scan(node["Relation Name"], rows, column[1] if column else "recorded_at"))
    return scans


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in _nodes(part))]


def _mysql(connection: sa.Connection, sql: str, bound: Mapping[str, Any]) -> list[FullScan]:
    plan = connection.execute(sa.text(f"EXPLAIN {as_query(sql, 'mysql')}"), bound).mappings()
    full = [
        row for row in plan if row["type"] in ("ALL", "index") and int(row["rows"] or 0) > LARGE
    ]
    return [_scan(_table(sql, row["table"]), int(row["rows"])) for row in full]


def _sqlite(connection: sa.Connection, sql: str, bound: Mapping[str, Any]) -> list[FullScan]:
    plan = connection.execute(
        sa.text(f"EXPLAIN QUERY PLAN {as_query(sql, 'sqlite')}"), bound
    ).scalars("detail")
    tables = [_table(sql, step.split()[1]) for step in plan if step.startswith("SCAN ")]
    sizes = {
        table: connection.execute(
            sa.text(f'SELECT max(rowid) FROM "{table}"')  # noqa: S608
        ).scalar()
        for table in tables
    }
    return [_scan(table, rows) for table, rows in sizes.items() if rows and rows > LARGE]


def _table(sql: str, alias: str) -> str:
    """The table of an alias, as far as the query's text shows it."""
    match = re.search(
        rf'\b(?:FROM|JOIN)\s+[`"]?([\w.]+)[`"]?\s+(?:AS\s+)?[`"]?{re.escape(alias)}\b',
        sql,
        re.IGNORECASE,
    )
    return match[1] if match else alias


def _scan(table: str, rows: float, column: str = "recorded_at") -> FullScan:
    name = re.sub(r"\W", "", f"{table}_{column}")
    return FullScan(table, int(rows), f"CREATE INDEX {name} ON {table} ({column})")
