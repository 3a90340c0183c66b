"""The database's URL from an Airflow connection: each extra is used, or named."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import psycopg
import sqlalchemy as sa

from recsys_ops.errors import SettingsError

log = logging.getLogger(__name__)

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
}
_LIBPQ = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
_PYMYSQL = {"connect_timeout", "ssl", "ssl_mode", "unix_socket"}
_SSL = ("ca", "capath", "cert", "cipher", "key")
_SSL_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
# what Airflow's own hooks take and what changes no row here: text is always read as UTF-8
_NOT_USED = {
    "charset",
    "client",
    "client_encoding",
    "cursor",
    "enable_log_db_messages",
    "local_infile",
    "sqlalchemy_scheme",
}


def sqlalchemy_url(
    conn_type: str, *, extra: Mapping[str, Any] | None = None, **parts: Any
) -> sa.URL:
    """The SQLAlchemy URL for the parts of an Airflow connection.

    extra : for PostgreSQL the options of libpq, e.g. ``{"sslmode": "verify-full"}``; for MySQL
        ``unix_socket``, ``connect_timeout``, ``ssl_mode``, and ``ssl``, an object with ``ca``,
        ``capath``, ``cert``, ``cipher``, ``key``, or ``ssl_ca`` and so on. Empty values do not
        count. An option that changes no row is named in a warning.
    parts : username, password, host, port, database. For SQLite the host or the database is the
        file.

    Raises SettingsError for another type or another extra, such as AWS's logins.
    """
    driver = _DRIVERS.get(conn_type.partition("+")[0])
    if driver is None:
        raise SettingsError(
            f"the database's connection has the type {conn_type}, which cannot be used: "
            "give postgres, mysql or sqlite"
        )
    is_sqlite, is_postgresql = driver == "sqlite", driver.startswith("postgresql")
    known = _LIBPQ if is_postgresql else _PYMYSQL | {f"ssl_{name}" for name in _SSL}
    given = {
        name: value
        for name, value in (extra or {}).items()
        if value is not None and value != "" and (value is not False or name in known)
    }
    not_used = given.keys() & (given.keys() if is_sqlite else _NOT_USED)
    if not_used:
        log.warning("extras of the database's connection are not used: %s", sorted(not_used))
    used = {name: value for name, value in given.items() if name not in not_used}
    if unknown := used.keys() - known:
        allowed = "an option of libpq" if is_postgresql else f"one of {', '.join(sorted(known))}"
        raise SettingsError(
            f"the database's connection: extra {', '.join(sorted(unknown))} cannot be used; "
            f"give login and password, or {allowed}"
        )
    if is_sqlite:
        return sa.URL.create(driver, database=parts.get("host") or parts.get("database"))
    options = used if is_postgresql else _mysql_options(used)
    query = {
        name: str(int(value) if isinstance(value, bool) else value)
        for name, value in options.items()
    }
    return sa.URL.create(driver, **parts, query=query)


def _mysql_options(extra: dict[str, Any]) -> dict[str, Any]:
    """The options as SQLAlchemy passes them to PyMySQL, which has no ``ssl_mode`` itself."""
    ssl, mode = extra.pop("ssl", {}), str(extra.pop("ssl_mode", "")).upper()
    try:
        files = json.loads(ssl) if isinstance(ssl, str) else ssl
    except json.JSONDecodeError:
        files = None
    if not isinstance(files, dict) or files.keys() - set(_SSL):
        raise SettingsError(
            "the database's connection: extra ssl cannot be used; give an object with "
            f"{', '.join(_SSL)}, and the rest in ssl_mode"
        )
    options = {**extra, **{f"ssl_{name}": value for name, value in files.items()}}
    if mode and mode not in _SSL_MODES:
        raise SettingsError(
            f"the database's connection: extra ssl_mode {mode} cannot be used; "
            f"give {', '.join(_SSL_MODES)}"
        )
    # without a certificate authority PyMySQL checks no certificate at all
    if mode.startswith("VERIFY") and not options.keys() & {"ssl_ca", "ssl_capath"}:
        raise SettingsError(
            f"the database's connection: extra ssl_mode {mode} cannot be used without ssl_ca, "
            "the file of the certificate authority"
        )
    match mode:
        case "DISABLED":
            return {**options, "ssl_disabled": True}
        case "REQUIRED" | "VERIFY_CA":
            return {**options, "ssl_check_hostname": False}
        case _:
            return options
