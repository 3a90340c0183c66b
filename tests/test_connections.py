"""Airflow's connections become what our drivers take, or an error says what is wrong."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from support.azurite.server import ACCOUNT, Azurite
from support.databases import make, read

from recsys_ops.connections import database_url as database_url_of
from recsys_ops.connections import open_storage, storage_options
from recsys_ops.errors import SettingsError
from recsys_ops.settings import Settings, load_settings


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that makes the connection and returns settings that use it."""

    def make(root: str = "abfs://shop/recsys", **connection: Any) -> Settings:
        monkeypatch.setenv("RECSYS_STORAGE__ROOT", root)
        monkeypatch.setenv(
            "AIRFLOW_CONN_RECSYS_BLOB", json.dumps({"conn_type": "wasb", **connection})
        )
        load_settings.cache_clear()
        return load_settings()

    yield make
    load_settings.cache_clear()


@pytest.mark.azurite
def test_an_account_and_its_key_open_the_storage(account: Any, azurite_server: Azurite) -> None:
    settings = account(
        f"{azurite_server.container()}/shop",
        login=ACCOUNT,
        password=azurite_server.key,
        host=azurite_server.endpoint,
    )
    open_storage(settings).put("a", b"1")
    assert open_storage(settings).get("a") == b"1"


@pytest.mark.azurite
def test_a_shared_access_signature_opens_the_storage(account: Any, azurite_server: Azurite) -> None:
    container = azurite_server.container()
    extra = {"sas_token": f"?{azurite_server.sas(container)}"}
    settings = account(
        f"{container}/shop", login=ACCOUNT, host=azurite_server.endpoint, extra=extra
    )
    open_storage(settings).put("a", b"1")
    assert open_storage(settings).list("") == ["a"]


@pytest.mark.parametrize(
    ("connection", "options"),
    [
        ({"login": "shop", "password": "key"}, {"account_name": "shop", "account_key": "key"}),
        ({"login": "shop"}, {"account_name": "shop"}),
        (
            {"login": "shop", "extra": {"managed_identity_client_id": "id"}},
            {"account_name": "shop", "client_id": "id"},
        ),
        (
            {
                "login": "app",
                "password": "pw",
                "host": "shop.blob.core.windows.net",
                "extra": {"tenant_id": "t"},
            },
            {
                "account_name": "shop",
                "endpoint": "https://shop.blob.core.windows.net",
                "client_id": "app",
                "client_secret": "pw",
                "tenant_id": "t",
            },
        ),
    ],
    ids=[
        "account key",
        "managed identity of the machine",
        "a named managed identity",
        "service principal",
    ],
)
def test_every_documented_way_to_sign_in_becomes_its_options(
    account: Any, connection: Any, options: dict[str, str]
) -> None:
    assert storage_options(account(**connection), "abfs://shop") == options


def test_a_workload_identity_uses_the_token_file_of_the_cluster(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = account(
        login="shop", extra={"workload_identity_tenant_id": "t", "managed_identity_client_id": "id"}
    )
    with pytest.raises(SettingsError, match="AZURE_FEDERATED_TOKEN_FILE"):
        storage_options(settings, "abfs://shop")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")
    assert storage_options(settings, "abfs://shop")["federated_token_file"] == "/var/run/token"


def test_an_unusable_connection_is_refused_without_showing_its_secrets(account: Any) -> None:
    with pytest.raises(SettingsError, match="connection_string cannot be used") as error:
        storage_options(
            account(login="shop", extra={"connection_string": "AccountKey=secret"}), "abfs://shop"
        )
    assert "secret" not in str(error.value)
    with pytest.raises(SettingsError, match="names no storage account"):
        storage_options(account(password="secret"), "abfs://shop")


def test_a_history_shorter_than_the_window_is_refused(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_HISTORY__RETENTION_DAYS", "367")
    with pytest.raises(
        SettingsError, match=r"history.retention_days = 367 is less than .* = 368"
    ) as error:
        account(login="shop")
    assert "found" not in str(error.value)


def test_a_database_in_a_uri_with_options_is_opened(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make(database_url, "CREATE SCHEMA sales", "CREATE TABLE sales.e AS SELECT 'ü' AS a")
    socket = quote(str(shop.query["host"]), safe="")
    monkeypatch.setenv(
        "AIRFLOW_CONN_RECSYS_DB",
        f"postgresql+psycopg2://{shop.username}@{socket}/{shop.database}"
        "?options=-c%20search_path%3Dsales&application_name=recsys&cursor=dictcursor",
    )
    assert read(database_url_of(load_settings()), "SELECT * FROM e").item() == "ü"


@pytest.mark.parametrize("extra", ["{sslmode: require}", '["sslmode"]', "sslmode=require"])
def test_an_extra_that_is_no_json_object_is_refused(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow would use the connection without it: without TLS."""
    connection = {"conn_type": "postgres", "host": "db", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_DB", json.dumps(connection))
    with pytest.raises(SettingsError, match="recsys_db: extra cannot be used") as error:
        database_url_of(load_settings())
    assert "secret" not in str(error.value)


def test_a_missing_database_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_RECSYS_DB", raising=False)
    with pytest.raises(
        SettingsError, match="no connection recsys_db: add it with type postgres, mysql or sqlite"
    ):
        database_url_of(load_settings())
