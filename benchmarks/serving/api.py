"""The lookup service's requests a second.

Beside it a FastAPI app that only does a GET of an answer of the same bytes. Both answer random
users over keep-alive connections, one uvicorn process each with the same flags, in short turns;
Redis and the client share the machine. Every answer is checked for its status and its length. A
request's time is as its connection sees it, while all other connections ask as well; its CPU time
is that of the app's process. The lookup service logs that it finds no model version to load; lists
need none.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
import redis
import redis.asyncio
import uvloop
from fastapi import FastAPI, Response

from benchmarks.harness import Report
from recsys_ops.demo import services
from recsys_ops.serving.layout import VersionLists
from recsys_ops.serving.publish import publish
from recsys_ops.settings import load_settings

ITEMS = 20
PORT = "BENCH_REDIS_PORT"
ROOT = Path(__file__).parents[2]


def plain() -> FastAPI:
    """The least work that FastAPI and Redis can do for an answer."""
    app, client = FastAPI(), redis.asyncio.Redis(port=int(os.environ[PORT]))

    @app.get("/users/{user_id}/recommendations")
    async def get(user_id: str) -> Response:
        return Response(await client.get(f"plain:{user_id}"), media_type="application/json")

    return app


def fill(port: int, users: int) -> None:
    """The same lists for both apps."""
    items = pl.DataFrame({"id": [f"user-{n}" for n in range(users)]}).with_columns(
        items=pl.concat_list(pl.lit(f"item-{rank:05}") for rank in range(ITEMS))
    )
    nothing, top = items.clear(), items["items"][0].to_list()
    client = redis.Redis(port=port)
    publish(
        client,
        load_settings().serving,
        "20260310-0123456789",
        VersionLists(items, nothing, nothing, nothing, top, top),
    )
    body = json.dumps(
        {"items": top, "source": "personal", "version": "20260310-0123456789"},
        separators=(",", ":"),
    )
    for start in range(0, users, 50_000):
        client.mset({f"plain:{user}": body for user in items["id"][start : start + 50_000]})


@contextmanager
def served(target: str, redis_port: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Port and process of an app."""
    port = services.free_port()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        PORT: str(redis_port),
        "AIRFLOW_CONN_RECSYS_REDIS": json.dumps({"host": "127.0.0.1", "port": redis_port}),
        "RECSYS_STORAGE__ROOT": folder.as_uri(),
    }
    flags = [
        "--factory",
        "--port",
        str(port),
        "--log-level",
        "critical",
        "--no-access-log",
    ]
    command = [sys.executable, "-m", "uvicorn", target, *flags]
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
                if process.poll() is not None:
                    raise RuntimeError(f"{target} did not start")
            yield port, process.pid
        finally:
            process.terminate()


def cpu(process: int) -> float:
    """CPU seconds that a process has used."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def ask(port: int, users: int, seconds: float, connections: int) -> list[float]:
    """The seconds that each request took."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        generator, length = random.Random(number), None  # noqa: S311
        while (began := time.perf_counter()) < deadline:
            writer.write(
                b"GET /users/user-%d/recommendations HTTP/1.1\r\nHost: shop\r\n\r\n"
                % generator.randrange(users)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(size)
            if not head.startswith(b"http/1.1 200") or size != (length := length or size):
                raise RuntimeError(f"unexpected answer: {head!r}")
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*map(one, range(connections)))
    return times


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--api-users", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--clients", type=int, default=16, help="connections")


def run(options: argparse.Namespace, report: Report) -> None:
    users, rounds = (1_000, 3) if options.quick else (options.api_users, options.rounds)
    seconds, clients = options.seconds, options.clients
    apps = {
        "a GET alone": "benchmarks.serving.api:plain",
        "the lookup service": "recsys_ops.serving.api:application",
    }
    rates: dict[str, list[float]] = {name: [] for name in apps}
    times: dict[str, list[float]] = {name: [] for name in apps}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["RECSYS_STORAGE__ROOT"] = folder.as_uri()
        redis_port = stack.enter_context(services.redis_server(folder / "redis"))
        fill(redis_port, users)
        running = {
            name: stack.enter_context(served(target, redis_port, folder))
            for name, target in apps.items()
        }
        for port, _ in running.values():
            uvloop.run(ask(port, users, 1, clients))  # warm up
        before = {name: cpu(process) for name, (_, process) in running.items()}
        for _ in range(rounds):
            for name, (port, _) in running.items():
                of_round = uvloop.run(ask(port, users, seconds, clients))
                rates[name].append(len(of_round) / seconds)
                times[name] += of_round
        used = {name: cpu(process) - before[name] for name, (_, process) in running.items()}
    table = report.table(
        "api",
        {
            "": "",
            "requests/s": ",.0f",
            "median, ms": ".2f",
            "p99, ms": ".2f",
            "CPU a request, µs": ".0f",
            "× a GET alone": ".2f",
            "half of the rounds": "",
        },
        f"{users:,} users, lists of {ITEMS}, {clients} connections, {rounds} rounds",
    )
    plain_rates = rates["a GET alone"]
    for name in apps:
        cuts = [1e3 * cut for cut in statistics.quantiles(times[name], n=100)]
        pairs = zip(plain_rates, rates[name], strict=True)
        low, middle, high = statistics.quantiles((rate / base for base, rate in pairs), n=4)
        table.add(
            name,
            statistics.median(rates[name]),
            cuts[49],
            cuts[98],
            1e6 * used[name] / len(times[name]),
            middle,
            f"{low:.2f} … {high:.2f}",
        )
