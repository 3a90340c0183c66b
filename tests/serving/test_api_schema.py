"""Wrong requests to the lookup service, and its OpenAPI schema."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from support.lookup_service import Lookup, wait_until

from recsys_ops.serving.live_model import LiveModels


@pytest.mark.parametrize("query", ["n=0", "n=4", "n=-1", "n=x", "n=", "details=yes"])
def test_a_wrong_query_is_refused_by_name(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/users/ann/recommendations?{query}")

    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"null",
        b"{}",
        b'{"items": null}',
        b'{"items": [1]}',
        b'{"items": ["a"], "n": 0}',
        b'{"items": ["a"], "n": 4}',
        b'{"items": ["a"], "n": "3"}',
        b'{"items": ["a"], "m": 3}',
        b'{"items": ["\\ud800"]}',
        b'{"items": ["\xff"]}',
        b"[" * 100_000,
        json.dumps({"items": ["a"] * 1001}).encode(),
    ],
)
def test_a_wrong_body_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/recommendations", content=body)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 65536] * 32

    for content in (b"x" * 2**21, chunks()):
        assert http.post("/recommendations", content=content).status_code == 413


@pytest.mark.parametrize(
    "target",
    [
        b"/users/%00%ff%fe%80/recommendations",  # no UTF-8
        b"/users/\xff\xfe/recommendations",
        b"/users/a b/recommendations",
        b"/users/a\x00b/recommendations",
        b"/users/%/recommendations",
        b"/popular?category=%ff&n=%ff",
        b"/popular?" + b"&".join(b"n=1" for _ in range(10_000)),
        b"/users/" + b"x" * 2**20 + b"/recommendations",
        b"/users/" + b"%ff" * 2**19 + b"/recommendations",
        b"/" * 2**20,
        b"http://[::1/users/x/recommendations",
        b"*",
    ],
)
def test_a_malformed_request_is_answered_and_harms_nobody(
    http: httpx.Client, target: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", http.base_url.port), timeout=10) as raw:
        raw.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        status = raw.makefile("rb").readline()

    assert status.split()[1] in {b"200", b"400", b"404", b"414", b"422", b"431"}
    assert http.get("/health").status_code == 200


def test_errors_have_one_shape(http: httpx.Client) -> None:
    for answer in (http.get("/nothing"), http.delete("/popular"), http.get("/popular/")):
        assert answer.status_code in {404, 405}
        assert list(answer.json()) == ["detail"]


def test_the_service_behaves_as_its_schema_says(
    live_redis: redis.Redis, lookup: Lookup, models: LiveModels, tmp_path: Path
) -> None:
    with lookup(key="key", require_key=True) as http:
        wait_until(lambda: models.current)
        url = f"{http.base_url}/openapi.json"
        command = [sys.executable, "-m", "schemathesis.cli", "run", url]
        command += ["--header", "X-API-Key: key", "--checks", "all", "--max-examples", "40"]
        command += ["--generation-deterministic", "--no-color"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=250)

    assert done.returncode == 0, done.stdout + done.stderr
