"""The stores behind Airflow's connections: storage, database, Redis."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from recsys_ops.errors import SettingsError
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy

    from recsys_ops.serving.client import Client
    from recsys_ops.storage.objects import Storage


def open_storage(settings: Settings) -> "Storage":
    from recsys_ops.storage.objects import Storage

    return Storage(settings.storage.root, storage_options(settings, settings.storage.root))


def storage_options(settings: Settings, url: str) -> dict[str, str]:
    """object_store's keys for what lies at a URL: none for a folder, else the connection's, of type wasb or Google's."""
    if url.startswith("file:"):
        return {}
    return (
        _google_options(settings.worker.google_conn_id)
        if url.startswith("gs:")
        else _azure_options(settings.storage.conn_id)
    )


def _azure_options(conn_id: str) -> dict[str, str]:
    """object_store's keys for the storage account of a `wasb` connection.

    The account is the login, or the host where that is a service principal's id; a host is also the endpoint. The first of
    these is used: extra ``sas_token``; password and extra ``tenant_id`` (service principal); password (the account's key);
    extra ``workload_identity_tenant_id``; managed identity. Raises SettingsError for what none of our clients can do.
    """
    connection = find_connection(conn_id, "wasb", "storage.conn_id")
    extra = {name: value for name, value in connection.extra_dejson.items() if value}
    if unknown := extra.keys() - _WASB_EXTRAS:
        raise SettingsError(
            f"connection {connection.conn_id}: extra {', '.join(sorted(unknown))} cannot be used; give login and password "
            f"(account and key) or one of {', '.join(_WASB_EXTRAS)}"
        )
    host = (connection.host or "").rstrip("/")
    endpoint = host if not host or "://" in host else f"https://{host}"
    if endpoint and connection.port:
        endpoint = f"{endpoint}:{connection.port}"
    principal = "tenant_id" in extra
    account = urlsplit(endpoint).netloc.partition(".")[0] if principal else connection.login
    if not account:
        where = "host (https://<account>.blob.core.windows.net)" if principal else "login"
        raise SettingsError(
            f"connection {connection.conn_id} names no storage account: put it into its {where}"
        )
    keys = {"account_name": account, "endpoint": endpoint, **_credentials(connection, extra)}
    return {name: value for name, value in keys.items() if value}


def _google_options(conn_id: str) -> dict[str, str]:
    """object_store's keys out of a `google_cloud_platform` connection: its service account's key, or none: the machine's own."""
    connection = find_connection(conn_id, "google_cloud_platform", "worker.google_conn_id")
    extra = {
        name.removeprefix("extra__google_cloud_platform__"): value
        for name, value in connection.extra_dejson.items()
        if value
    }
    if unknown := extra.keys() & {
        "key_secret_name",
        "credential_config_file",
        "impersonation_chain",
        "is_anonymous",
    }:
        raise SettingsError(
            f"connection {conn_id}: {', '.join(sorted(unknown))} cannot be used for gs://; give keyfile_dict or key_path"
        )
    if "key_path" in extra:
        return {"service_account_key": Path(extra["key_path"]).read_text()}
    key = extra.get("keyfile_dict")
    return {"service_account_key": key if isinstance(key, str) else json.dumps(key)} if key else {}


def find_connection(conn_id: str, kind: str, setting: str) -> Connection:
    """Raises SettingsError when Airflow has none of that name; `kind` and `setting` say what to add."""
    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        raise SettingsError(
            f"Airflow has no connection {conn_id}: add it, type {kind}, or name another in {setting}"
        ) from error
    return connection


_WASB_EXTRAS = (
    "sas_token",
    "tenant_id",
    "workload_identity_tenant_id",
    "managed_identity_client_id",
)


def _credentials(connection: Connection, extra: dict[str, str]) -> dict[str, str | None]:
    if "sas_token" in extra:
        return {"sas_token": extra["sas_token"].lstrip("?")}
    if "tenant_id" in extra:
        return {
            "client_id": connection.login,
            "client_secret": connection.password,
            "tenant_id": extra["tenant_id"],
        }
    if connection.password:
        return {"account_key": connection.password}
    identity = {"client_id": extra.get("managed_identity_client_id")}
    if "workload_identity_tenant_id" in extra:
        token = os.environ.get("AZURE_FEDERATED_TOKEN_FILE")
        if not token:
            raise SettingsError(
                f"connection {connection.conn_id}: workload identity needs AZURE_FEDERATED_TOKEN_FILE in the environment; "
                "label the pod azure.workload.identity/use"
            )
        return {
            **identity,
            "tenant_id": extra["workload_identity_tenant_id"],
            "federated_token_file": token,
        }
    return identity


def database_url(settings: Settings) -> "sqlalchemy.URL":
    from recsys_ops.source.database import sqlalchemy_url

    connection = Connection.get(settings.source.conn_id)
    return sqlalchemy_url(
        connection.conn_type,
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        extra=connection.extra_dejson,
    )


def open_redis(settings: Settings) -> "Client":
    from recsys_ops.serving.client import address, connect

    connection = find_connection(settings.serving.conn_id, "redis", "serving.conn_id")
    fields = {name: getattr(connection, name) for name in ("host", "port", "login", "password")}
    return connect(address(connection.conn_id, {**fields, "extra": connection.extra_dejson}))
