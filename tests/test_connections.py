"""Airflow's `wasb` connection opens the storage account, or an error says what is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.azurite.server import ACCOUNT, Azurite

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
