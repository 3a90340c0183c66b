"""The Compose file satisfies the specification's schema and our own rules. No Docker is needed."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.airflow.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if re.match(r"\w+=", line)
)
SECRET = re.compile(r"PASS|SECRET|KEY|AUTH$|ACCOUNTS|CONN|BROKER_URL|RESULT_BACKEND")
NOT_SECRET = {"AIRFLOW_ADMIN_USER", "BLOB_ACCOUNT"}

each_service = pytest.mark.parametrize("name", SERVICES)


def one_shot(service: dict[str, Any]) -> bool:
    return bool(service["restart"] == "no")


def filled(text: str, values: dict[str, str]) -> str:
    """`text` as Compose interpolates it."""
    return re.sub(
        r"\$\{(\w+)(:\?[^}]*)?\}", lambda match: values[match[1]], text.replace("$$", "\0")
    ).replace("\0", "$")


def test_the_file_satisfies_the_compose_specification() -> None:
    schema = get_builtin_schema("vendor.compose-spec")

    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"postgres": {"imagge": "postgres"}}}, schema)


def test_all_of_airflow_and_its_neighbours_are_there() -> None:
    commands = {str(service.get("command", "")).split(" --")[0] for service in SERVICES.values()}
    assert {"api-server", "scheduler", "dag-processor", "triggerer", "celery worker"} <= commands
    assert {"postgres", "shop-db", "redis-celery", "redis-recsys", "azurite"} <= SERVICES.keys()


@each_service
def test_a_service_that_keeps_running_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert (
        one_shot(service)
        or {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys()
    )


@each_service
def test_a_service_waits_for_services_that_can_become_ready(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        expected = (
            "service_completed_successfully" if one_shot(SERVICES[other]) else "service_healthy"
        )
        assert wait["condition"] == expected


@each_service
def test_images_are_pinned_to_a_patch_release(name: str) -> None:
    service = SERVICES[name]
    images = [
        service["image"],
        *re.findall(r"^FROM (\S+)", service.get("build", {}).get("dockerfile_inline", ""), re.M),
    ]
    assert all(re.search(r":\d+\.\d+\.\d+(-|$)|:17\.\d+-", image) for image in images)


@each_service
def test_no_container_runs_as_root(name: str) -> None:
    assert SERVICES[name]["user"].split(":")[0] not in ("", "0", "root")
    assert not SERVICES[name].get("privileged")


def test_secrets_come_from_the_environment_only() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            assert "${" in str(value) or not SECRET.search(variable), (
                f"{name}: {variable} is literal"
            )
    without_variables = re.sub(r"\$+\{[^}]*\}", "", TEXT)
    assert not re.findall(r':\w+@|"password": "[^"]|--requirepass "?\w', without_variables)


def test_variables_are_required_and_the_example_has_exactly_these() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    required = set(re.findall(r"(?<!\$)\$\{(\w+):\?see \.env\.example\}", TEXT))
    assert used == required == EXAMPLE.keys()
    assert {value for name, value in EXAMPLE.items() if name not in NOT_SECRET} == {"replace-me"}


@pytest.mark.parametrize("conn", ["recsys_db", "recsys_blob", "recsys_redis"])
def test_connections_are_json_that_airflow_reads(conn: str) -> None:
    from airflow.sdk import Connection

    values = {name: f"value-of-{name}" for name in EXAMPLE}
    text = filled(SERVICES["airflow-worker"]["environment"][f"AIRFLOW_CONN_{conn.upper()}"], values)
    connection = Connection.from_json(text, conn_id=conn)
    assert connection.conn_type == json.loads(text)["conn_type"]
    assert connection.password.startswith("value-of-")


def test_settings_named_in_the_file_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.configuration import conf

    from recsys_ops.settings import Settings

    environment = SERVICES["airflow-worker"]["environment"]
    for variable in environment:
        if match := re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", variable):
            section, option = match[1].lower(), match[2].lower()
            assert (
                section == "celery" or option in conf.configuration_description[section]["options"]
            ), variable
        if variable.startswith("RECSYS_"):
            monkeypatch.setenv(variable, environment[variable])
    assert Settings().storage.root == "abfs://recsys"


def test_the_locked_requirements_are_installed_into_the_image() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    version = re.search(r"^apache-airflow==(\S+)", lock, re.M)
    dockerfile = SERVICES["airflow-worker"]["build"]["dockerfile_inline"]
    assert version and f"FROM apache/airflow:{version[1]}-" in dockerfile
    assert "-r /tmp/requirements.txt" in dockerfile


def test_the_shops_redis_never_evicts_and_survives_a_restart() -> None:
    command = SERVICES["redis-recsys"]["command"][-1]
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert "redis-recsys:/data" in SERVICES["redis-recsys"]["volumes"]


def test_named_volumes_are_declared_and_mounted_folders_exist() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (
                (ROOT / source).is_dir()
                if source.startswith("./")
                else source in COMPOSE["volumes"]
            )
