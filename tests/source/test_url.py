"""Every extra that Airflow documents for a database is used, or named as not used."""

import logging
import ssl
from typing import Any

import certifi
import pymysql
import pytest
import sqlalchemy as sa
from support.databases import make, read

from recsys_ops.errors import SettingsError, SourceError
from recsys_ops.source.url import sqlalchemy_url


def with_extra(url: sa.URL, extra: dict[str, Any]) -> sa.URL:
    """The URL of Airflow's connection to this database with an extra."""
    socket = url.query.get("host")
    return sqlalchemy_url(
        url.get_backend_name(),
        username=url.username,
        password=url.password,
        host=socket or url.host,
        port=url.port,
        database=url.database,
        extra=extra,
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"cursor": "dictcursor"},
        {"client_encoding": "latin1"},
        {"sqlalchemy_scheme": "postgresql+psycopg2"},
        {"enable_log_db_messages": True},
    ],
    ids=str,
)
def test_what_changes_no_row_of_postgresql_is_named_in_a_warning(
    database_url: str, extra: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    url = with_extra(sa.make_url(database_url), extra)
    assert read(url, "SELECT 'ü€' AS a").item() == "ü€"
    assert f"not used: {list(extra)}" in caplog.text


@pytest.mark.parametrize(
    "extra",
    [
        {"charset": "latin1", "cursor": "SSDictCursor"},
        {"client": "mysql-connector-python", "local_infile": True},
    ],
    ids=str,
)
def test_what_changes_no_row_of_mysql_is_named_in_a_warning(
    mariadb_url: sa.URL, extra: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert read(with_extra(mariadb_url, extra), "SELECT 'ü€' AS a").item() == "ü€"
    assert f"not used: {sorted(extra)}" in caplog.text


def test_extras_of_sqlite_are_named_in_a_warning(
    sqlite_url: sa.URL, caplog: pytest.LogCaptureFixture
) -> None:
    url = sqlalchemy_url("sqlite", host=sqlite_url.database, extra={"mode": "rwc", "timeout": 5})
    assert read(url, "SELECT 1 AS a").item() == 1
    assert "not used: ['mode', 'timeout']" in caplog.text


@pytest.mark.parametrize(
    ("conn_type", "extra", "named"),
    [
        ("postgres", {"iam": True, "aws_conn_id": "aws"}, "extra aws_conn_id, iam cannot be used"),
        ("postgres", {"redshift": True, "cluster-identifier": "c"}, "cluster-identifier, redshift"),
        ("postgres", {"azure_conn_id": "azure"}, "azure_conn_id cannot be used"),
        ("postgres", {"sslca": "/ca.pem"}, "sslca cannot be used; .* an option of libpq"),
        ("mysql", {"iam": True}, "extra iam cannot be used; .*unix_socket"),
        ("mysql", {"sslmode": "require"}, "extra sslmode cannot be used; .*ssl_mode"),
        ("mysql", {"ssl": "/ca.pem"}, "extra ssl cannot be used; give an object with ca"),
        ("mysql", {"ssl": {"mode": "x"}}, "extra ssl cannot be used; give an object with ca"),
        ("mysql", {"ssl_mode": "on"}, "extra ssl_mode ON cannot be used; give DISABLED"),
        ("mysql", {"ssl_mode": "VERIFY_CA"}, "VERIFY_CA cannot be used without ssl_ca"),
        ("oracle", {}, "has the type oracle, which cannot be used: give postgres"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_by_name(
    conn_type: str, extra: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        sqlalchemy_url(conn_type, host="db", extra=extra)


def test_an_extra_that_is_switched_off_is_no_fault() -> None:
    sqlalchemy_url("postgres", host="db", extra={"iam": False, "aws_conn_id": "", "sslmode": None})


def test_options_and_names_of_postgresql_reach_both_drivers(database_url: str) -> None:
    url = make(database_url, "CREATE SCHEMA sales", "CREATE TABLE sales.e (a text)")
    make(url, "INSERT INTO sales.e VALUES (current_setting('application_name'))")
    extra = {
        "options": "-c search_path=sales -c client_encoding=LATIN1",
        "application_name": "recsys",
        "connect_timeout": 5,
    }
    sql = "SELECT e.*, current_setting('application_name') AS name, 'ü€' AS note FROM e"
    assert read(with_extra(url, extra), sql).row(0)[1:] == ("recsys", "ü€")


@pytest.mark.parametrize(
    ("extra", "encrypted"),
    [
        ({"ssl_mode": "DISABLED"}, False),
        ({"ssl_mode": "PREFERRED"}, True),
        ({"ssl_mode": "required"}, True),
    ],
    ids=str,
)
def test_the_ssl_mode_of_mysql_is_obeyed(
    mariadb_url: sa.URL, extra: dict[str, Any], encrypted: bool
) -> None:
    with sa.create_engine(mariadb_url).connect() as connection:
        has_tls = connection.exec_driver_sql("SELECT @@have_ssl").scalar() == "YES"
    url = with_extra(mariadb_url, extra)
    sql = "SELECT variable_value AS cipher FROM information_schema.session_status "
    sql += "WHERE variable_name = 'Ssl_cipher'"
    if extra["ssl_mode"] == "required" and not has_tls:
        with pytest.raises(SourceError):
            read(url, sql)
    else:
        assert bool(read(url, sql).item()) == (encrypted and has_tls)


@pytest.mark.parametrize("files", [{"ca": "/gone.pem"}, '{"ca": "/gone.pem"}'], ids=str)
def test_ssl_as_an_object_or_as_text_asks_for_tls(mariadb_url: sa.URL, files: Any) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read(with_extra(mariadb_url, {"ssl": files}), "SELECT 1")


CA = {"ca": certifi.where()}


@pytest.mark.parametrize(
    ("extra", "verifies", "checks_host"),
    [
        ({"ssl_mode": "REQUIRED"}, False, False),
        ({"ssl_mode": "VERIFY_CA", "ssl": CA}, True, False),
        ({"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": certifi.where()}, True, True),
        ({"ssl": CA}, True, True),
    ],
    ids=["required", "verify ca", "verify identity", "ca alone"],
)
def test_the_ssl_mode_decides_what_of_the_certificate_is_checked(
    extra: dict[str, Any], verifies: bool, checks_host: bool
) -> None:
    url = sqlalchemy_url("mysql", host="db", extra=extra)
    _, arguments = sa.create_engine(url).dialect.create_connect_args(url)
    context = pymysql.Connection(**arguments, defer_connect=True).ctx
    assert (context.verify_mode == ssl.CERT_REQUIRED, context.check_hostname) == (
        verifies,
        checks_host,
    )


def test_a_false_or_a_zero_is_no_empty_value_of_libpq() -> None:
    extra = {"keepalives": 0, "sslcompression": False, "gssencmode": "disable", "sslsni": True}
    assert sqlalchemy_url("postgres", host="db", extra=extra).query == {
        "keepalives": "0",
        "sslcompression": "0",
        "gssencmode": "disable",
        "sslsni": "1",
    }


def test_no_secret_is_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        sqlalchemy_url("postgres", host="db", password="hunter2", extra={"cursor": "hunter2"})
    assert "hunter2" not in caplog.text
