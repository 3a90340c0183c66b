"""Reading real databases: read-only, with a time limit, errors that say what to check."""

import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import make, read

from recsys_ops.errors import DataError, SourceError
from recsys_ops.source.database import open_query, query_frame
from recsys_ops.source.url import sqlalchemy_url


def test_two_columns_of_one_name_are_refused(database_url: str, mariadb_url: sa.URL) -> None:
    for url in (database_url, mariadb_url):
        with pytest.raises(DataError, match="two columns named a"):
            read(url, "SELECT 1 AS a, 2 AS a")


def test_the_database_cannot_be_written_to(
    database_url: str, mariadb_url: sa.URL, sqlite_url: sa.URL
) -> None:
    make(database_url, "CREATE SEQUENCE numbers")
    make(mariadb_url, "CREATE SEQUENCE numbers")
    for url in (database_url, mariadb_url):
        with pytest.raises(DataError, match=r"(?i)read.only transaction"):
            read(
                url,
                "SELECT nextval(numbers)" if url is mariadb_url else "SELECT nextval('numbers')",
            )
    make(sqlite_url, "CREATE TABLE e (a)")
    with pytest.raises(DataError, match="readonly database"):
        read(sqlite_url, "INSERT INTO e VALUES (1) RETURNING a")


def test_a_slice_is_sorted_in_memory_and_no_larger_allowance_is_lowered(database_url: str) -> None:
    url, sql = sa.make_url(database_url), "SELECT current_setting('work_mem') AS memory"
    generous = url.update_query_dict({"options": "-c work_mem=64MB"})
    assert [read(each, sql)["memory"].item() for each in (url, generous)] == ["32MB", "64MB"]


def test_a_query_that_takes_too_long_is_cancelled(
    database_url: str, mariadb_url: sa.URL, sqlite_url: sa.URL
) -> None:
    endless = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
    )
    slow = {
        database_url: ("SELECT pg_sleep(30)", "statement timeout"),
        mariadb_url: (
            "SELECT count(*) FROM seq_1_to_9999999 a, seq_1_to_9999999 b",
            "max_statement_time",
        ),
        sqlite_url: (endless, "interrupted"),
    }
    for url, (sql, message) in slow.items():
        with pytest.raises(SourceError, match=message):
            read(url, sql, timeout_s=1)


def test_a_missing_table_or_column_is_named_and_not_retried(
    database_url: str, mariadb_url: sa.URL, sqlite_url: sa.URL
) -> None:
    for url in (database_url, mariadb_url, sqlite_url):
        with pytest.raises(DataError, match=r"events.*check include/sql"):
            read(url, "SELECT * FROM events")
        with pytest.raises(DataError, match=r"prize.*check include/sql"):
            read(url, "SELECT prize FROM (SELECT 1 AS price) AS e")


def test_a_query_that_fails_on_a_late_row_is_retried_if_that_can_help(
    database_url: str, mariadb_url: sa.URL
) -> None:
    with pytest.raises(DataError, match="refused the query: division by zero; check include/sql"):
        read(database_url, "SELECT 1 / (400000 - n) AS a FROM generate_series(1, 500000) AS n")
    make(
        database_url,
        "CREATE FUNCTION pick(n int, state text) RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN IF n > 90000 THEN RAISE 'no more' USING ERRCODE = state; END IF; "
        "RETURN n; END $$",
    )
    for state, expected in {
        "P0001": DataError,
        "40001": SourceError,
        "53200": SourceError,
        "58030": SourceError,
    }.items():
        with pytest.raises(expected, match="no more"):
            read(
                database_url, f"SELECT pick(n, '{state}') AS a FROM generate_series(1, 100000) AS n"
            )
    for code, expected in {1365: DataError, 1205: SourceError, 1226: SourceError}.items():
        make(
            mariadb_url,
            "CREATE OR REPLACE FUNCTION pick(n int) RETURNS int "
            "BEGIN IF n > 90000 THEN SIGNAL SQLSTATE '45000' "
            f"SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'no more'; END IF; RETURN n; END",
        )
        with pytest.raises(expected, match="no more"):
            read(mariadb_url, "SELECT pick(seq) AS a FROM seq_1_to_100000")


def test_a_parameter_without_a_value_is_named(database_url: str, mariadb_url: sa.URL) -> None:
    for url in (database_url, mariadb_url):
        with pytest.raises(DataError, match="since"):
            read(url, "SELECT :since AS a")


def test_an_unreachable_database_is_named_without_its_password() -> None:
    for conn_type in ("postgres", "mysql", "mariadb"):
        url = sqlalchemy_url(
            conn_type,
            username="shop",
            password="hunt/er@2",
            host="127.0.0.1",
            port=1,
            database="shop",
        )
        with pytest.raises(SourceError, match=r"'shop' on 127\.0\.0\.1 does not answer") as error:
            read(url, "SELECT 1")
        assert "hunt" not in str(error.value)


def test_a_missing_sqlite_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="unable to open database file"):
        read(sqlalchemy_url("sqlite", host=f"{tmp_path}/shop.db"), "SELECT 1")
    assert not (tmp_path / "shop.db").exists()


def test_a_password_of_any_characters_opens_both_servers(
    database_url: str, mariadb_url: sa.URL
) -> None:
    password = "p'a\\s /@:%#? ü"
    make(
        mariadb_url,
        "CREATE USER odd@localhost IDENTIFIED BY 'p\\'a\\\\s /@:%#? ü'",
        f"GRANT SELECT ON {mariadb_url.database}.* TO odd@localhost",
    )
    parts = {"username": "odd", "password": password, "host": "127.0.0.1", "port": mariadb_url.port}
    assert read(
        sqlalchemy_url("mysql", **parts, database=mariadb_url.database), "SELECT 1 AS a"
    ).rows() == [(1,)]
    make(database_url, "CREATE ROLE odd LOGIN PASSWORD 'p''a\\s /@:%#? ü'")
    url = sa.make_url(database_url)
    socket = {
        "username": "odd",
        "password": password,
        "host": url.query["host"],
        "database": url.database,
    }
    assert read(
        sqlalchemy_url("postgres", **socket, extra={"sslmode": "prefer"}), "SELECT 1 AS a"
    ).rows() == [(1,)]


def test_tls_is_requested_by_the_connections_extra(database_url: str, mariadb_url: sa.URL) -> None:
    for url, extra in (
        (sa.make_url(database_url), {"sslmode": "require"}),
        (mariadb_url, {"ssl_ca": "/nowhere.pem"}),
    ):
        parts = {
            "username": url.username,
            "password": "hunter2",
            "host": url.host or "127.0.0.1",
            "port": url.port or 1,
        }
        with pytest.raises(SourceError) as error:
            read(
                sqlalchemy_url(url.get_backend_name(), **parts, database=url.database, extra=extra),
                "SELECT 1",
            )
        assert "hunter2" not in str(error.value)


def test_no_value_of_a_row_is_in_an_error(database_url: str) -> None:
    make(
        database_url,
        "CREATE TABLE users (email text)",
        "INSERT INTO users VALUES ('ann@example.com')",
    )
    with pytest.raises(DataError, match="invalid input syntax for type integer: …") as error:
        read(database_url, "SELECT CAST(email AS integer) AS a FROM users")
    assert "ann@" not in "".join(traceback.format_exception(error.value))


def cut(
    url: sa.URL, kill: str, sql: str, running: Callable[[sa.Connection], list[int]]
) -> SourceError:
    """Run a query whose connection the server kills after the first rows; returns the error."""
    arrived = threading.Event()

    def killer() -> None:
        arrived.wait(20)
        with sa.create_engine(
            url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        ).connect() as connection:
            for process in running(connection):
                connection.exec_driver_sql(kill.format(process))

    thread = threading.Thread(target=killer)
    thread.start()
    with (
        pytest.raises(SourceError, match="does not answer or stopped") as error,
        open_query(url, sql, timeout_s=60) as query,
    ):
        for table in query({}):
            if table.num_rows:
                arrived.set()
                time.sleep(0.2)
    thread.join()
    return error.value


def test_a_connection_cut_while_rows_arrive_is_an_error(
    database_url: str, mariadb_url: sa.URL
) -> None:
    others = (
        "SELECT pid FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    rows = "SELECT n, repeat('x', 100) AS note FROM generate_series(1, 3000000) AS n"
    cut(
        sa.make_url(database_url),
        "SELECT pg_terminate_backend({})",
        rows,
        lambda c: list(c.exec_driver_sql(others).scalars()),
    )
    mine = (
        "SELECT id FROM information_schema.processlist "
        "WHERE db = database() AND id <> connection_id()"
    )
    rows = "SELECT seq, repeat('x', 100) AS note FROM seq_1_to_3000000"
    cut(mariadb_url, "KILL {}", rows, lambda c: list(c.exec_driver_sql(mine).scalars()))


def test_the_shipped_events_query_runs_on_the_smallest_start(tmp_path: Path) -> None:
    columns = (
        "line_id, recorded_at, event_id, event_time, user_id, customer_ref, product_id, sku, "
        "action, quantity, price"
    )
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.execute(f"CREATE TABLE events ({columns}, user_agent, ip, app_version)")
        connection.execute("CREATE TABLE users (user_id, email, role)")
        connection.execute(
            "INSERT INTO events (line_id, recorded_at) "
            "VALUES (1, '2026-03-02 00:00:00'), (2, '2026-03-02 01:00:00')"
        )
    sql = (Path(__file__).parents[2] / "include" / "sql" / "extract_events.sql").read_text()
    window = {"start": datetime(2026, 3, 2, tzinfo=UTC), "end": datetime(2026, 3, 2, 1, tzinfo=UTC)}
    assert query_frame(sqlalchemy_url("sqlite", host=str(file)), sql, window, timeout_s=5)[
        "row_id"
    ].to_list() == [1]
