"""The lookup service while Redis hangs, is gone, empty or damaged, and under load."""

import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from support.lookup_service import V1, Lookup, wait_until

from recsys_ops.demo import services
from recsys_ops.lists.fold_in import FoldIn
from recsys_ops.serving import api_routes
from recsys_ops.serving.publish import publish
from recsys_ops.settings import Settings


def assert_503_soon(http: httpx.Client) -> None:
    requests: list[tuple[str, str, Any]] = [
        ("GET", path, None) for path in ("/users/ann/recommendations", "/health", "/version")
    ]
    for method, path, body in [*requests, ("POST", "/recommendations", {"items": ["cup-1"]})]:
        started = time.monotonic()
        answer = http.request(method, path, json=body)
        assert (answer.status_code, time.monotonic() - started < 5) == (503, True)
        assert int(answer.headers["retry-after"]) > 0
        assert "127.0.0.1" not in answer.text


def test_a_redis_that_hangs_or_is_gone_gives_503_and_comes_back(
    api_settings: Settings, lookup: Lookup, tmp_path: Path
) -> None:
    with services.redis_server(tmp_path / "one") as port:
        client = redis.Redis(port=port)
        publish(client, api_settings.serving, "v1", V1)
        pid = int(client.info("server")["process_id"])
        with lookup(port) as http:
            assert http.get("/health").status_code == 200
            os.kill(pid, signal.SIGSTOP)
            try:
                assert_503_soon(http)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert http.get("/users/ann/recommendations").json()["source"] == "personal"

            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)))
            assert_503_soon(http)
            # the new server reads the append-only file of the killed one
            with services.redis_server(tmp_path / "one", port):
                assert http.get("/users/ann/recommendations").json()["source"] == "personal"


def parallel_statuses(port: int, clients: int) -> set[int]:
    """The statuses that this many clients get at the same time.

    They use bare sockets, because httpx would be slower than the service.
    """

    async def one(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /users/{number}/recommendations HTTP/1.1\r\n"
            "Host: shop\r\nConnection: close\r\n\r\n".encode()
        )
        status = (await reader.readline()).split()[1]
        writer.close()
        return int(status)

    async def ask() -> set[int]:
        return {*await asyncio.gather(*map(one, range(clients)))}

    return asyncio.run(ask())


def test_three_hundred_clients_at_once_are_all_answered(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # redis-py has 100 connections; how long 300 reads take depends on how busy the machine is
    monkeypatch.setattr(api_routes, "_READ_TIMEOUT_S", 30)

    assert parallel_statuses(http.base_url.port, 300) == {200}


def test_many_clients_of_a_redis_that_hangs_wait_no_longer_than_one(
    api_settings: Settings, lookup: Lookup, tmp_path: Path
) -> None:
    with services.redis_server(tmp_path) as port:
        client = redis.Redis(port=port)
        publish(client, api_settings.serving, "v1", V1)
        pid = int(client.info("server")["process_id"])
        with lookup(port) as http:
            os.kill(pid, signal.SIGSTOP)
            try:
                started = time.monotonic()
                assert parallel_statuses(http.base_url.port, 200) == {503}
                assert time.monotonic() - started < 15
            finally:
                os.kill(pid, signal.SIGCONT)


def test_an_empty_redis_gives_503(live_redis: redis.Redis, lookup: Lookup) -> None:
    live_redis.flushall()
    with lookup() as http:
        assert_503_soon(http)


@pytest.mark.parametrize(
    ("user", "field"), [("ann", "ann"), ("ann", "_version"), ("bob", "_popular")]
)
def test_a_damaged_field_gives_503(
    live_redis: redis.Redis, api_settings: Settings, http: httpx.Client, user: str, field: str
) -> None:
    for key in live_redis.scan_iter(f"{api_settings.serving.prefix}:*"):
        live_redis.hset(key, field, b"\xff")

    answer = http.get(f"/users/{user}/recommendations")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_without_a_redis_the_service_starts_and_gives_503(lookup: Lookup) -> None:
    with lookup(services.free_port()) as http:
        assert_503_soon(http)


def test_a_client_that_leaves_while_it_sends_is_no_error(
    http: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    with socket.create_connection(("127.0.0.1", http.base_url.port), timeout=10) as raw:
        raw.sendall(b"POST /recommendations HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.2)
    time.sleep(0.2)

    assert http.get("/health").status_code == 200
    assert not caplog.records


def test_an_error_of_the_service_gives_500_without_its_cause(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FoldIn, "recommend", lambda *_: 1 / 0)

    answer = http.post("/recommendations", json={"items": ["cup-1"]})

    assert (answer.status_code, list(answer.json())) == (500, ["detail"])
    assert "division" not in answer.text
    # over another connection: after a 500 the server closes the old one
    assert httpx.get(f"{http.base_url}/popular").status_code == 200
