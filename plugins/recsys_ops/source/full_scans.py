"""Noticing a query that reads a whole large table: the production database's own plan, asked before the first slice."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from recsys_ops.errors import DataError
from recsys_ops.source.database import begin_read_only, bind_times, database_session, render_sql

LARGE = 100_000


@dataclass(frozen=True)
class FullScan:
    """A table that the query reads from end to end, about how many rows it has, and the statement that would help."""

    table: str
    rows: int
    advice: str


def full_scans(
    url: sa.URL, sql: str, parameters: Mapping[str, datetime], *, timeout_s: int
) -> list[FullScan]:
    """The tables of more than 100,000 rows that the query would read whole to find the rows between its parameters.

    Of PostgreSQL, scans filtered by a parameter; of the others any. Empty when the database explains nothing: an extract must
    not fail for want of advice.
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
    found = []
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
            found.append(_scan(node["Relation Name"], rows, column[1] if column else "recorded_at"))
    return found


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in _nodes(part))]


def _mysql(connection: sa.Connection, sql: str, bound: Mapping[str, Any]) -> list[FullScan]:
    plan = connection.execute(sa.text(f"EXPLAIN {sql}"), bound).mappings()
    whole = [
        row for row in plan if row["type"] in ("ALL", "index") and int(row["rows"] or 0) > LARGE
    ]
    return [_scan(_table(sql, row["table"]), int(row["rows"])) for row in whole]


def _sqlite(connection: sa.Connection, sql: str, bound: Mapping[str, Any]) -> list[FullScan]:
    plan = connection.execute(sa.text(f"EXPLAIN QUERY PLAN {sql}"), bound).scalars("detail")
    tables = [_table(sql, step.split()[1]) for step in plan if step.startswith("SCAN ")]
    sizes = {
        table: connection.execute(sa.text(f'SELECT max(rowid) FROM "{table}"')).scalar()
        for table in tables
    }
    return [_scan(table, rows) for table, rows in sizes.items() if rows and rows > LARGE]


def _table(sql: str, alias: str) -> str:
    """The table that a query calls so, as far as its text tells."""
    found = re.search(
        rf'\b(?:FROM|JOIN)\s+[`"]?([\w.]+)[`"]?\s+(?:AS\s+)?[`"]?{re.escape(alias)}\b',
        sql,
        re.IGNORECASE,
    )
    return found[1] if found else alias


def _scan(table: str, rows: float, column: str = "recorded_at") -> FullScan:
    name = re.sub(r"\W", "", f"{table}_{column}")
    return FullScan(table, int(rows), f"CREATE INDEX {name} ON {table} ({column})")
