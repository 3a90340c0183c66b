"""``python benchmarks/api.py [--users 100000] [--seconds .5] [--rounds 30] [--connections 16]``: the look-up's requests a second.

Beside it stands a FastAPI app that only does a GET of an answer of the same bytes. Both are asked for random users over
keep-alive connections, one uvicorn process each with the same flags, in short turns; Redis and the asking process share the
machine. Every answer is checked for its status and its length. A request's time is as its connection sees it, while all the
others ask as well; its CPU time is that of the app's process. The look-up complains that it finds no model version to load:
lists need none.
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
from measure import machine

from recsys_ops.demo import services
from recsys_ops.serving.layout import VersionLists
from recsys_ops.serving.publish import publish
from recsys_ops.settings import load_settings

ITEMS = 20
PORT = "BENCH_REDIS_PORT"


def plain() -> FastAPI:
    """The least that FastAPI and Redis can do."""
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
        "2026-03-10-0123456789ab",
        VersionLists(items, nothing, nothing, nothing, top, top),
    )
    body = json.dumps(
        {"items": top, "source": "personal", "version": "2026-03-10-0123456789ab"},
        separators=(",", ":"),
    )
    for start in range(0, users, 50_000):
        client.mset({f"plain:{user}": body for user in items["id"][start : start + 50_000]})


@contextmanager
def served(target: str, redis_port: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Port and process of an app."""
    port = services.free_port()
    environment = os.environ | {
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
        "--app-dir",
        str(Path(__file__).parent),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", target, *flags], env=environment
    ) as process:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
                if process.poll() is not None:
                    raise RuntimeError(f"{target} did not start")
            yield port, process.pid
        finally:
            process.terminate()


def cpu(process: int) -> float:
    """Seconds of CPU that a process has had."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def ask(port: int, users: int, seconds: float, connections: int) -> list[float]:
    """The seconds that each request took."""
    took: list[float] = []
    deadline = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        chance, length = random.Random(number), None  # noqa: S311
        while (began := time.perf_counter()) < deadline:
            writer.write(
                b"GET /users/user-%d/recommendations HTTP/1.1\r\nHost: shop\r\n\r\n"
                % chance.randrange(users)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            found = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(found)
            if not head.startswith(b"http/1.1 200") or found != (length := length or found):
                raise RuntimeError(f"unexpected answer: {head!r}")
            took.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*map(one, range(connections)))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    apps = {"a GET alone": "api:plain", "the look-up": "recsys_ops.serving.api:application"}
    rates: dict[str, list[float]] = {name: [] for name in apps}
    times: dict[str, list[float]] = {name: [] for name in apps}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["RECSYS_STORAGE__ROOT"] = folder.as_uri()
        port = stack.enter_context(services.redis_server(folder / "redis"))
        fill(port, given.users)
        running = {
            name: stack.enter_context(served(target, port, folder)) for name, target in apps.items()
        }
        for at, _ in running.values():
            uvloop.run(ask(at, given.users, 1, given.connections))  # warm
        spent = {name: -cpu(process) for name, (_, process) in running.items()}
        for _ in range(given.rounds):
            for name, (at, _) in running.items():
                took = uvloop.run(ask(at, given.users, given.seconds, given.connections))
                rates[name].append(len(took) / given.seconds)
                times[name] += took
        spent = {name: spent[name] + cpu(process) for name, (_, process) in running.items()}
    print(machine())
    for name in apps:
        cuts = [1e3 * cut for cut in statistics.quantiles(times[name], n=100)]
        rate, each = statistics.median(rates[name]), 1e6 * spent[name] / len(times[name])
        print(
            f"{name:12}{rate:8,.0f} requests/s   median {cuts[49]:.2f} ms   99 % {cuts[98]:.2f} ms   CPU {each:.0f} µs"
        )
    ratios = statistics.quantiles(
        (ours / theirs for theirs, ours in zip(*rates.values(), strict=True)), n=4
    )
    print(f"ratio       {ratios[1]:8.2f} (half of the rounds {ratios[0]:.2f} … {ratios[2]:.2f})")


if __name__ == "__main__":
    main()
