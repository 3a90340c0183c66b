"""Readers at full speed while publishers are killed, replies are lost, Redis restarts or fills."""

import json
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_lists import lists_of, redis_7
from support.redis_processes import SETTINGS, USERS, publish_version

from recsys_ops.demo import services
from recsys_ops.errors import ServingError
from recsys_ops.serving.layout import live_key, lock_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import live_version, publish

ROOT = Path(__file__).parents[2]

# test_publish.py tests the other servers
pytestmark = pytest.mark.parametrize("redis_url", ["redis 7"], indirect=True)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "support.redis_processes", *arguments]
    paths = [ROOT, ROOT / "plugins", ROOT / "tests"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "POLARS_MAX_THREADS": "1",
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def readers(address: dict[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Two processes that read. Calling what this yields ends them and returns what they saw."""
    with ExitStack() as stack:
        processes = [start("read", json.dumps(address)) for _ in range(2)]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout and process.stdout.readline() == "reading\n"

        def end() -> dict[str, Any]:
            seen = [json.loads(process.communicate("stop")[0]) for process in processes]
            sums = {name: sum(one[name] for one in seen) for name in ("reads", "missing", "mixed")}
            largest = {
                name: max(one[name] for one in seen) for name in ("versions", "p99_s", "worst_s")
            }
            errors = [moment for one in seen for moment in one["errors"]]
            return sums | largest | {"errors": errors}

        yield end


def test_readers_miss_nothing_while_twenty_publishes_are_killed(
    redis_client: redis.Redis, redis_url: str
) -> None:
    address = {"port": redis.connection.parse_url(redis_url)["port"]}
    chance = random.Random(2)
    publish_version(redis_client, 0)
    with readers(address) as end, start("publish", json.dumps(address)) as publishers:
        assert publishers.stdin and publishers.stdout
        for kill in range(20):
            first = 1 + 1000 * kill
            print(first, file=publishers.stdin, flush=True)
            publisher = int(publishers.stdout.readline())
            while redis_client.hget(live_key(SETTINGS, 0), "_version") != f"v{first}".encode():
                os.kill(publisher, 0)
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.2))
            os.kill(publisher, signal.SIGKILL)
            time.sleep(0.05)  # Redis still does what it was sent
            redis_client.delete(lock_key(SETTINGS))  # it would end by itself after 10 s
            if kill % 4 == 0:  # else the next publisher finds what this one left
                publish_version(redis_client, first + 500)
                assert live_version(find_nodes(redis_client, SETTINGS)) == f"v{first + 500}"
        publishers.stdin.close()
        seen = end()

    assert (seen["missing"], seen["mixed"], seen["errors"]) == (0, 0, [])
    assert seen["reads"] > USERS
    assert seen["versions"] > 20


class _Proxy(socketserver.ThreadingTCPServer):
    """A proxy of Redis that cuts the connection instead of the first reply to a command.

    words : part of that command
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, words: bytes) -> None:
        self.port, self.words, self.lost = port, words, 0
        super().__init__(("127.0.0.1", 0), _Relay)


class _Relay(socketserver.BaseRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
            threading.Thread(target=self._back, args=(upstream,), daemon=True).start()
            while sent := self.request.recv(1 << 20):
                if self.server.words in sent and not self.server.lost:
                    self.server.lost = 1
                upstream.sendall(sent)

    def _back(self, upstream: socket.socket) -> None:
        while reply := upstream.recv(1 << 20):
            if self.server.lost == 1:
                self.server.lost = 2
                self.request.shutdown(socket.SHUT_RDWR)
                return
            self.request.sendall(reply)


@pytest.mark.parametrize("words", [b"EVAL", b"HSET", b"HMGET"])
def test_a_command_with_a_lost_reply_is_sent_again(
    redis_client: redis.Redis, redis_url: str, words: bytes
) -> None:
    publish_version(redis_client, 1)
    with _Proxy(redis.connection.parse_url(redis_url)["port"], words) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        through = redis.Redis(port=proxy.server_address[1])
        publish_version(through, 2)
        assert proxy.lost == 2
        proxy.shutdown()

    assert live_version(find_nodes(redis_client, SETTINGS)) == "v2"
    assert {
        redis_client.hget(f"{live_key(SETTINGS, bucket)}:previous", "_version")
        for bucket in range(64)
    } == {b"v1"}


def test_a_redis_that_is_killed_and_restarted_serves_what_it_served(
    redis_url: str, tmp_path: Path
) -> None:
    program, port = redis_7(), services.free_port()
    options = ["--appendfsync", "always"]
    with ExitStack() as stack:
        stack.enter_context(services.redis_server(tmp_path, port, program=program, options=options))
        client = redis.Redis(port=port)
        publish_version(client, 1)
        end = stack.enter_context(readers({"port": port}))
        time.sleep(0.5)
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
        down = time.monotonic()
        time.sleep(0.3)
        stack.enter_context(services.redis_server(tmp_path, port, program=program, options=options))
        up = time.monotonic()
        time.sleep(0.5)
        publish_version(client, 2)
        seen = end()

    assert (seen["missing"], seen["mixed"], seen["versions"]) == (0, 0, 2)
    assert seen["errors"]
    assert all(down - 0.1 < since and until < up + 0.1 for since, until in seen["errors"])


def test_a_full_redis_still_serves(redis_client: redis.Redis, redis_url: str) -> None:
    publish_version(redis_client, 1)
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"] + 5_000_000)
    try:
        with readers({"port": redis.connection.parse_url(redis_url)["port"]}) as end:
            for _ in range(3):
                with pytest.raises(ServingError, match="it has no memory left"):
                    publish(
                        redis_client,
                        SETTINGS,
                        "v2",
                        lists_of({f"{n}": ["x" * 300] * 5 for n in range(20_000)}, ["x"]),
                    )
            seen = end()
    finally:
        redis_client.config_set("maxmemory", 0)

    assert (seen["missing"], seen["mixed"], seen["errors"], seen["versions"]) == (0, 0, [], 1)
    assert not redis_client.keys("*:next")
