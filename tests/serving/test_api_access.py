"""The lookup service's key, its rate limit, and what it logs."""

import json
import os
import socket
import subprocess
import sys

import httpx
import pytest
import redis
from support.lookup_service import Lookup, wait_until

from recsys_ops.demo import services
from recsys_ops.errors import SettingsError
from recsys_ops.settings import Settings


def test_without_the_key_only_health_is_answered(live_redis: redis.Redis, lookup: Lookup) -> None:
    with lookup(key="kéy", require_key=True) as http:
        for path in ("/users/ann/recommendations", "/popular", "/version"):
            for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "wrong"}, {b"X-API-Key": b"\xff"}):
                refused = http.get(path, headers=headers)
                assert refused.status_code == 401
                assert "X-API-Key" in refused.json()["detail"]
            assert http.get(path, headers={b"X-API-Key": "kéy".encode()}).status_code == 200
        assert http.get("/health").status_code == 200
        schemes = http.get("/openapi.json").json()["components"]["securitySchemes"]
        assert schemes["APIKeyHeader"]["name"] == "X-API-Key"


@pytest.mark.parametrize("key", [None, "", " \n", os.fsdecode(b"\xe9"), "two\nlines"])
def test_a_required_key_must_be_set_and_usable(lookup: Lookup, key: str | None) -> None:
    with pytest.raises(SettingsError, match="RECSYS_API_KEY"):
        lookup(key=key, require_key=True)


def test_blanks_around_the_key_are_ignored(live_redis: redis.Redis, lookup: Lookup) -> None:
    with lookup(key=" s3cret\r\n", require_key=True) as http:
        assert http.get("/popular", headers={"X-API-Key": "s3cret"}).status_code == 200
        assert http.get("/popular", headers={"X-API-Key": "secret"}).status_code == 401


def test_too_many_requests_are_answered_with_429_and_a_wait(
    live_redis: redis.Redis, lookup: Lookup
) -> None:
    with lookup(key="key", require_key=True, requests_per_minute=5) as http:
        # a new minute may begin between two of them
        without_key = [http.get("/popular").status_code for _ in range(12)]
        answers = [http.get("/popular", headers={"X-API-Key": "key"}) for _ in range(12)]
        assert http.get("/health").status_code == 200

    assert set(without_key) == {401, 429}
    codes = [answer.status_code for answer in answers]
    assert codes[:5] == [200] * 5
    assert codes[-1] == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 120


def test_the_service_runs_as_a_program_and_logs_no_request(
    live_redis: redis.Redis, api_settings: Settings, redis_port: int
) -> None:
    port = services.free_port()
    environment = os.environ | {
        "AIRFLOW_CONN_RECSYS_REDIS": json.dumps(
            {"conn_type": "redis", "host": "127.0.0.1", "port": redis_port}
        ),
        "RECSYS_SERVING__API__PORT": str(port),
        "RECSYS_SERVING__API__REQUIRE_KEY": "true",
    }
    command = [sys.executable, "-m", "recsys_ops.serving.api"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "RECSYS_API_KEY" in refused.stderr

    with subprocess.Popen(
        command,
        env=environment | {"RECSYS_API_KEY": "s3cret"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 60)
            answer = httpx.get(
                f"http://127.0.0.1:{port}/users/ann/recommendations",
                headers={"X-API-Key": "s3cret"},
            )
            assert answer.json()["source"] == "personal"
        finally:
            process.terminate()
        out, err = process.communicate(timeout=30)
    assert "/users" not in out + err  # user ids with addresses are personal data
    assert "s3cret" not in out + err
