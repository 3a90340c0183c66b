"""The extract against pandas.read_sql and the server's COPY.

Makes one day of events in a PostgreSQL (or MariaDB) server and reads it with
include/sql/extract_events.sql: in one go by the server's binary COPY to /dev/null; in one go by
pandas; and in slices into the raw Parquet object, as `extract_delta` does. Each runs in a process
of its own, three times in turn; the fastest time and the peak memory count.
"""

import argparse
import tempfile
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from benchmarks.harness import Report, apart
from recsys_ops.demo import services
from recsys_ops.ingest.deliveries import write_delivery
from recsys_ops.settings import include_dir
from recsys_ops.source.database import render_sql
from recsys_ops.source.session import bind_times, database_session
from recsys_ops.source.slices import extract_slices
from recsys_ops.storage.objects import Storage

QUERY = (include_dir() / "sql" / "extract_events.sql").read_text()
START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = {"start": START, "end": START + timedelta(days=1)}
COLUMNS = (
    "recorded_at, event_id, event_time, user_id, product_id, action, quantity, price, user_agent, "
    "ip, app_version"
)
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0"
)
TABLE = """line_id bigint PRIMARY KEY, recorded_at {time} NOT NULL,
    event_id varchar(50), event_time varchar(50), user_id varchar(50), customer_ref varchar(50),
    product_id varchar(50), sku varchar(50), action varchar(50), quantity varchar(50),
    price numeric(10, 2), user_agent text, ip varchar(50), app_version varchar(50)"""
VALUES = f"""concat('u', n % 20000), concat('p', n % 5000),
    CASE WHEN n % 3 = 0 THEN 'cart' ELSE 'view' END, '1', n % 9999 / 100.0,
    concat('{AGENT}.', n % 500), concat('10.0.', n % 250, '.5'), '4.1.2'"""
USERS = "INSERT INTO users SELECT concat('u', n), concat('user', n, '@example.com'), 'customer'"
FILL = {
    "postgresql": [
        f"CREATE TABLE events ({TABLE.format(time='timestamptz')})",
        f"INSERT INTO events (line_id, {COLUMNS}) SELECT n, at, md5(n::text), at::text, {VALUES}"  # noqa: S608
        " FROM generate_series(0, {rows} - 1) n,"
        " LATERAL (SELECT timestamptz '2026-01-01Z' + n * (interval '1 day' / {rows}) AS at) AS t",
        f"{USERS} FROM generate_series(0, 19999) n",
        "CREATE INDEX ON events (recorded_at)",
        "ANALYZE",
    ],
    "mariadb": [
        "SET time_zone = '+00:00'",
        f"CREATE TABLE events ({TABLE.format(time='timestamp(6)')})",
        f"INSERT INTO events (line_id, {COLUMNS}) SELECT n, at, md5(n), at, {VALUES} FROM"  # noqa: S608
        " (SELECT seq AS n, '2026-01-01' + INTERVAL seq * (86400 / {rows}) SECOND AS at"
        " FROM seq_0_to_{last}) AS t",
        f"{USERS} FROM (SELECT seq AS n FROM seq_0_to_19999) AS t",  # noqa: S608
        "CREATE INDEX recorded ON events (recorded_at)",
        "ANALYZE TABLE events, users",
    ],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 500_000])
    parser.add_argument("--slice-hours", type=int, default=1)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mariadb", action="store_true", help="MariaDB instead of PostgreSQL")
    parser.add_argument(
        "--extract-only", action="store_true", help="without pandas, which holds all rows"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    sizes, rounds = ([20_000], 1) if options.quick else (options.rows, options.rounds)
    ways = {"COPY": copy, "pandas": pandas, "extract": extract}
    if options.mariadb:
        del ways["COPY"]
    if options.extract_only:
        del ways["pandas"]
    table = report.table(
        "extract, MariaDB" if options.mariadb else "extract",
        {
            "rows": ",",
            "COPY, s": ".2f",
            "pandas, s": ".2f",
            "extract, s": ".2f",
            "× COPY": ".2f",
            "× pandas": ".1f",
            "extract, MiB": ",.0f",
            "pandas, MiB": ",.0f",
        },
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder) / "server", mariadb=options.mariadb) as url,
    ):
        for rows in sizes:
            fill(url, rows)
            seconds = {name: [] for name in ways}
            peak = dict.fromkeys(ways, 0.0)
            for name in [*ways] * rounds:
                _, cost = apart(ways[name], url, options.slice_hours, options.connections)
                seconds[name].append(cost.seconds)
                peak[name] = max(peak[name], cost.peak_mib)
            best = {name: min(seconds[name]) for name in ways}
            rivals = [best.get(name) for name in ("COPY", "pandas")]
            table.add(
                rows,
                *rivals,
                best["extract"],
                *(rival and rival / best["extract"] for rival in rivals),
                peak["extract"],
                peak.get("pandas"),
            )


def copy(url: sa.URL, hours: int, connections: int) -> None:
    with database_session(url, 3600) as connection:
        driver = connection.connection.driver_connection
        driver.execute(f"COPY ({render_sql(QUERY, WINDOW)}) TO '/dev/null' (FORMAT binary)")


def pandas(url: sa.URL, hours: int, connections: int) -> None:
    pd.read_sql(sa.text(QUERY), sa.create_engine(url), params=bind_times(url, WINDOW))


def extract(url: sa.URL, hours: int, connections: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts"
        parts.mkdir()
        frame, rows = extract_slices(
            url,
            QUERY,
            [WINDOW["start"].date()],
            hours=hours,
            connections=connections,
            timeout_s=3600,
            folder=parts,
        )
        write_delivery(Storage(f"file://{folder}/blob"), *rows, frame, rows, "benchmark")


def server(folder: Path, *, mariadb: bool) -> AbstractContextManager[sa.URL]:
    return services.mariadb(folder) if mariadb else services.postgres(folder)


def fill(url: sa.URL, rows: int) -> None:
    with sa.create_engine(
        url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
    ).connect() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS events, users")
        connection.exec_driver_sql(
            "CREATE TABLE users"
            " (user_id varchar(50) PRIMARY KEY, email varchar(50), role varchar(50))"
        )
        for statement in FILL[url.get_backend_name()]:
            sql = statement.format(rows=rows, last=rows - 1)
            connection.execution_options(no_parameters=True).exec_driver_sql(sql)
