"""The systems behind Airflow's connections: storage, database, Redis."""

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

    from recsys_ops.serving.client import RedisClient
    from recsys_ops.storage.objects import Storage

_WASB_EXTRAS = (
    "sas_token",
    "tenant_id",
    "workload_identity_tenant_id",
    "managed_identity_client_id",
)
# ways to log in that object_store does not know
_REFUSED_GOOGLE_EXTRAS = {
    "key_secret_name",
    "credential_config_file",
    "impersonation_chain",
    "is_anonymous",
}


def open_storage(settings: Settings) -> "Storage":
    """The storage of ``storage.root``. Raises SettingsError like `storage_options`."""
    from recsys_ops.storage.objects import Storage

    return Storage(settings.storage.root, storage_options(settings, settings.storage.root))


def staging_storage(settings: Settings, job_name: str) -> "Storage | None":
    """Where the files of a job are staged; None if the worker reads ``storage.root`` itself."""
    from recsys_ops.storage.objects import Storage

    url = settings.worker.staging_url
    return Storage(f"{url.rstrip('/')}/{job_name}", storage_options(settings, url)) if url else None


def storage_options(settings: Settings, url: str) -> dict[str, str]:
    """object_store's options for a URL: credentials and endpoint of its connection.

    A local folder has none. Google Cloud's come from ``worker.google_conn_id``, Azure's from
    ``storage.conn_id``. Raises SettingsError if the connection is missing or cannot be used.
    """
    if url.startswith("file:"):
        return {}
    if url.startswith("gs:"):
        return _google_options(settings.worker.google_conn_id)
    return _azure_options(settings.storage.conn_id)


def worker_environment(settings: Settings) -> dict[str, str]:
    """The worker's storage credentials, as object_store takes them from the environment.

    Empty if the connection has no secret, and on Vertex AI, where everybody who can see a job can
    see its environment; there the worker uses the machine's own identity.

    Raises SettingsError for a workload identity, which another machine cannot use.
    """
    launcher, url = settings.worker.launcher, settings.worker.staging_url or settings.storage.root
    if launcher == "vertex":
        return {}
    options = storage_options(settings, url)
    if launcher == "ssh" and "federated_token_file" in options:
        raise SettingsError(
            f"connection {settings.storage.conn_id} has a workload identity, which only this "
            "machine can use: a worker on another machine needs a key, a SAS or a service "
            "principal, or worker.staging_url = gs://… and an identity of its own"
        )
    prefix, own_prefixes = (
        ("GOOGLE", ("GOOGLE_",))
        if url.startswith("gs:")
        else ("AZURE_STORAGE", ("AZURE_", "AZURITE_"))
    )
    environment = {f"{prefix}_{key.upper()}": value for key, value in options.items()}
    if launcher == "local":
        own = {name: value for name, value in os.environ.items() if name.startswith(own_prefixes)}
        return {**own, **environment}
    return environment


def find_connection(conn_id: str, conn_type: str, setting: str) -> Connection:
    """The Airflow connection of this id.

    conn_type, setting : for the message, which says what to add or to change

    Raises SettingsError if there is none, or if its extra is not an object in JSON: Airflow would
    use the connection without it, and so without TLS.
    """
    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        raise SettingsError(
            f"Airflow has no connection {conn_id}: add it with type {conn_type}, "
            f"or name another one in {setting}"
        ) from error
    try:
        extra = json.loads(connection.extra or "{}")
    except json.JSONDecodeError:
        extra = None
    if not isinstance(extra, dict):
        raise SettingsError(
            f"connection {conn_id}: extra cannot be used, because it is not an object in JSON; "
            'correct it, e.g. {"sslmode": "require"}'
        )
    return connection


def database_url(settings: Settings) -> "sqlalchemy.URL":
    """The URL of the shop's database, from ``source.conn_id``.

    Raises SettingsError if the connection is missing or has what no driver of ours can use.
    """
    from recsys_ops.source.url import sqlalchemy_url

    connection = find_connection(
        settings.source.conn_id, "postgres, mysql or sqlite", "source.conn_id"
    )
    return sqlalchemy_url(
        connection.conn_type or "",
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        extra=connection.extra_dejson,
    )


def open_redis(settings: Settings) -> "RedisClient":
    """A client of the Redis in ``serving.conn_id``."""
    from recsys_ops.serving.client import connect_redis, parse_address

    connection = find_connection(settings.serving.conn_id, "redis", "serving.conn_id")
    fields = {name: getattr(connection, name) for name in ("host", "port", "login", "password")}
    return connect_redis(
        parse_address(connection.conn_id, {**fields, "extra": connection.extra_dejson})
    )


def _azure_options(conn_id: str) -> dict[str, str]:
    """object_store's options for the storage account of a `wasb` connection.

    The account is the login; with a service principal the login is the client id, and the account
    comes from the host. A host is also the endpoint. Of these credentials the first one is used:
    extra ``sas_token``; password and extra ``tenant_id`` (service principal); password (account
    key); extra ``workload_identity_tenant_id``; managed identity.

    Raises SettingsError for a way to log in that one of our clients does not know.
    """
    connection = find_connection(conn_id, "wasb", "storage.conn_id")
    extra = {name: value for name, value in connection.extra_dejson.items() if value}
    if unknown := extra.keys() - _WASB_EXTRAS:
        raise SettingsError(
            f"connection {connection.conn_id}: extra {', '.join(sorted(unknown))} cannot be used; "
            f"give login and password (account and key) or one of {', '.join(_WASB_EXTRAS)}"
        )
    host = (connection.host or "").rstrip("/")
    endpoint = host if not host or "://" in host else f"https://{host}"
    if endpoint and connection.port:
        endpoint = f"{endpoint}:{connection.port}"
    is_principal = "tenant_id" in extra
    account = urlsplit(endpoint).netloc.partition(".")[0] if is_principal else connection.login
    if not account:
        field = "host (https://<account>.blob.core.windows.net)" if is_principal else "login"
        raise SettingsError(
            f"connection {connection.conn_id} names no storage account: put it into its {field}"
        )
    options = {"account_name": account, "endpoint": endpoint, **_credentials(connection, extra)}
    return {name: value for name, value in options.items() if value}


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
    if "workload_identity_tenant_id" not in extra:
        return identity
    token = os.environ.get("AZURE_FEDERATED_TOKEN_FILE")
    if not token:
        raise SettingsError(
            f"connection {connection.conn_id}: a workload identity needs "
            "AZURE_FEDERATED_TOKEN_FILE in the environment; "
            "label the pod azure.workload.identity/use"
        )
    return {
        **identity,
        "tenant_id": extra["workload_identity_tenant_id"],
        "federated_token_file": token,
    }


def _google_options(conn_id: str) -> dict[str, str]:
    """object_store's options from a `google_cloud_platform` connection.

    This is the key of its service account. Without one the machine's own identity is used.
    """
    connection = find_connection(conn_id, "google_cloud_platform", "worker.google_conn_id")
    extra = {
        name.removeprefix("extra__google_cloud_platform__"): value
        for name, value in connection.extra_dejson.items()
        if value
    }
    if unknown := extra.keys() & _REFUSED_GOOGLE_EXTRAS:
        raise SettingsError(
            f"connection {conn_id}: {', '.join(sorted(unknown))} cannot be used for gs://; "
            "give keyfile_dict or key_path"
        )
    if "key_path" in extra:
        return {"service_account_key": Path(extra["key_path"]).read_text()}
    key = extra.get("keyfile_dict")
    return {"service_account_key": key if isinstance(key, str) else json.dumps(key)} if key else {}
