"""Publishing and reading users' lists against the usual ways.

A list is 20 items of a shop of 90,000. The rival is a pipeline of redis-py's ``SET recs:<user>
<JSON>``, 10,000 at a time; the least possible is ``redis-cli --pipe`` with the bytes that we send,
already built. All use one Redis on this machine, the system's (`redis-server`) if it is installed,
in one run: once with its own configuration and once with the one that the documentation advises
(``compact``), with four times as many buckets. Reads alternate between the layouts. While a version
is published two processes read; *worst* is the longest that one of them waited.

With several numbers of users, a straight line through the seconds gives those of 10,000,000.
"""

import argparse
import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import redis

from benchmarks.harness import Report, timed
from recsys_ops.demo import services
from recsys_ops.serving.layout import (
    EncodedVersion,
    VersionLists,
    bucket_of,
    encode_version,
    field_of,
    live_key,
    next_key,
)
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import publish, stage_version, swap, swap_back, verify_buckets
from recsys_ops.serving.resp import hset_commands
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings

ITEMS, N, FIRST_USER = 90_000, 20, 1_000_000
COMPACT = ["--hash-max-listpack-entries", "1024", "--hash-max-listpack-value", "1024"]
READS = 40_000
READERS_USERS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=int, nargs="*", default=[1_000_000])
    parser.add_argument(
        "--program", default=shutil.which("redis-server", path="/usr/bin"), help="another server"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    sizes = [20_000] if options.quick else options.users
    reads = 1_000 if options.quick else READS
    seconds: dict[str, list[float]] = {}
    for users in sizes:
        for row in compare(users, reads, options.program, report):
            seconds.setdefault(row.name, []).append(row.encoded + (row.staged or 0))
    if len(sizes) > 1:
        table = report.table(
            "publish, 10,000,000",
            {"10,000,000 users, by a straight line": "", "encoded and staged, s": ".1f"},
        )
        for name, measured_seconds in seconds.items():
            slope, start = np.polyfit(sizes, measured_seconds, 1)
            table.add(name, float(start + slope * 10_000_000))


@dataclass
class Row:
    name: str
    encoded: float
    staged: float | None = None
    verified: float | None = None
    swapped: float | None = None
    back: float | None = None
    memory: float = 0.0


def compare(users: int, reads: int, program: str | None, report: Report) -> list[Row]:
    """Measure all layouts for one number of users."""
    lists = made(users)
    with server(program) as (client, port):
        version = client.info("server")["redis_version"]
        rival, memory = measured(client, users, partial(set_json, client, lists.users))
    rows = [Row("SET of JSON", rival, memory=memory)]
    buckets = 4096 * 2 ** round(np.log2(max(users / 1_000_000, 1)))
    pipes = report.table(
        f"pipe, {users:,}",
        {"bytes of": "", "`redis-cli --pipe`, s": ".2f", "× our staging": ".2f"},
        f"{users:,} users, Redis {version}",
    )
    for encoding in ("text", "int32"):
        settings = ServingSettings(encoding=encoding, buckets=buckets)
        small = settings.model_copy(update={"buckets": 4 * buckets})
        for name, layout, more in (
            (encoding, settings, []),
            (f"{encoding}, compact", small, COMPACT),
        ):
            with server(program, more) as (client, port):
                rows.append(publish_twice(client, layout, name, lists, users))
        with server(program) as (client, port):
            piped = pipe(encode_version(settings, "piped", lists), settings, port)
            pipes.add(encoding, piped, piped / (rows[-2].staged or 1))
    steps = ("encoded", "staged", "verified", "swapped", "back")
    table = report.table(
        f"publish, {users:,}",
        {
            "seconds": "",
            **dict.fromkeys(steps, ".2f"),
            "bytes/user": ",.0f",
            "× speed": ".1f",
            "× memory": ".2f",
        },
        f"{users:,} users, Redis {version}",
    )
    for row in rows:
        table.add(
            row.name,
            *(getattr(row, step) for step in steps),
            row.memory,
            rival / (row.encoded + (row.staged or 0)),
            row.memory / memory,
        )
    with server(program) as (client, port):
        read(client, port, lists, users, reads, report)
    return rows


def made(users: int) -> VersionLists:
    items = np.random.default_rng(1).integers(10_000, 10_000 + ITEMS, users * N)
    frame = pl.DataFrame(
        {
            "id": pl.Series(np.arange(users) + FIRST_USER).cast(pl.String),
            "items": pl.Series(items).cast(pl.String).reshape((users, N)).arr.to_list(),
        }
    )
    nothing = frame.clear()
    return VersionLists(
        frame, nothing, nothing, nothing, [str(10_000 + item) for item in range(N)], []
    )


def set_json(client: redis.Redis, lists: pl.DataFrame) -> None:
    pipeline = client.pipeline(transaction=False)
    for part in lists.iter_slices(10_000):
        for user, items in part.iter_rows():
            pipeline.set(f"recs:{user}", json.dumps(items))
        pipeline.execute()


def publish_twice(
    client: redis.Redis, settings: ServingSettings, name: str, lists: VersionLists, users: int
) -> Row:
    """Two versions: the first for the memory; the second, while the first is live, is timed."""
    nodes = find_nodes(client, settings)
    _, memory = measured(
        client, users, lambda: stage_version(nodes, encode_version(settings, "v1", lists))
    )
    swap(nodes, "v1")
    times = [time.perf_counter()]
    content = encode_version(settings, "v2", lists)
    times.append(time.perf_counter())
    for step in (
        partial(stage_version, nodes, content),
        partial(verify_buckets, nodes, content),
        partial(swap, nodes, "v2"),
        partial(swap_back, nodes, "v1"),
    ):
        step()
        times.append(time.perf_counter())
    return Row(name, *map(float, np.diff(times)), memory=memory)


def pipe(content: EncodedVersion, settings: ServingSettings, port: int) -> float:
    with tempfile.NamedTemporaryFile() as file:
        for batch in content.batches(50_000):
            file.writelines(hset_commands(content, batch, partial(next_key, settings)))
        file.flush()
        with Path(file.name).open("rb") as stored:
            began = time.perf_counter()
            command = ["redis-cli", "-p", str(port), "--pipe"]
            subprocess.run(command, stdin=stored, check=True, capture_output=True)  # noqa: S603
        return time.perf_counter() - began


def read(
    client: redis.Redis, port: int, lists: VersionLists, users: int, reads: int, report: Report
) -> None:
    """One process reads all layouts in turn; then two read while a version is published."""
    settings = {
        encoding: ServingSettings(encoding=encoding, prefix=encoding)
        for encoding in ("text", "int32")
    }
    set_json(client, lists.users.head(READERS_USERS))
    for layout in settings.values():
        publish(client, layout, "v1", lists)
    drawn = np.random.default_rng(2).integers(0, min(users, READERS_USERS), reads)
    store = RecommendationStore(client, settings["text"])
    ways: dict[str, Callable[[str], Any]] = {
        "GET": lambda user: client.get(f"recs:{user}"),
        "GET and json.loads": lambda user: json.loads(client.get(f"recs:{user}")),
        **{
            f"HMGET {encoding}": partial(hmget, client, layout)
            for encoding, layout in settings.items()
        },
        "RecommendationStore": store.recommendations,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in drawn:
        for name, way in ways.items():
            began = time.perf_counter()
            way(str(FIRST_USER + number))
            seconds[name].append(time.perf_counter() - began)
    bare = np.quantile(seconds["GET"], 0.99)
    table = report.table(
        f"read, {users:,}",
        {"": "", "median, µs": ".0f", "p99, µs": ".0f", "× GET's p99": ".2f"},
    )
    for name, measured_seconds in seconds.items():
        median, high = np.quantile(measured_seconds, [0.5, 0.99])
        table.add(name, float(median * 1e6), float(high * 1e6), float(high / bare))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(time.sleep, [1, 1])  # both processes are started
        waits = pool.map_async(waited, [(port, min(users, READERS_USERS))] * 2, chunksize=1)
        time.sleep(0.5)
        _, cost = timed(publish, client, settings["text"], "v2", lists)
        client.set("stop", 1)
        every = np.concatenate(waits.get())
    table = report.table(
        f"read while publishing, {users:,}",
        {"publishing, s": ".1f", "reads": ",", "p99, ms": ".1f", "worst, ms": ".0f"},
    )
    p99, worst = np.quantile(every, 0.99) * 1e3, every.max() * 1e3
    table.add(cost.seconds, len(every), float(p99), float(worst))


def hmget(client: redis.Redis, settings: ServingSettings, user: str) -> Any:
    return client.hmget(
        live_key(settings, bucket_of(settings, user)),
        [field_of("user", user), b"_popular", b"_version"],
    )


def waited(reader: tuple[int, int]) -> list[float]:
    """Seconds of each read, until the key ``stop`` exists. reader : port, number of users"""
    port, users = reader
    client = redis.Redis(port=port)
    store = RecommendationStore(client, ServingSettings(prefix="text"))
    rng, seconds = np.random.default_rng(port), []
    while not (seconds and client.exists("stop")):
        for user in rng.integers(0, users, 200):
            began = time.perf_counter()
            assert store.recommendations(str(FIRST_USER + user)).source == "personal"
            seconds.append(time.perf_counter() - began)
    return seconds


def measured(client: redis.Redis, users: int, work: Any) -> tuple[float, float]:
    """Seconds, and bytes a user."""
    before, began = client.info("memory")["used_memory"], time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return seconds, (client.info("memory")["used_memory"] - before) / users


@contextmanager
def server(
    program: str | None, options: list[str] | None = None
) -> Iterator[tuple[redis.Redis, int]]:
    more = [*(options or []), "--appendonly", "no"]
    with (
        tempfile.TemporaryDirectory(prefix="recsys-benchmark-") as folder,
        services.redis_server(Path(folder), program=program, options=more) as port,
    ):
        yield redis.Redis(port=port), port
