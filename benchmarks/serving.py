"""``python benchmarks/serving.py [USERS …]``: publishing and reading users' lists against what people usually do.

A list is 20 items of a shop of 90,000. The rival is a pipeline of redis-py's ``SET recs:<user> <JSON>``, 10,000 at a time; the
floor is ``redis-cli --pipe`` with the bytes that we send, already built. All talk to one Redis on this machine, the system's
(`redis-server`) if it is installed, in one run: once as it comes and once as docs/reference/redis-layout.md advises (``compact``), with four
times as many buckets. Reads alternate between the layouts. While a version is published two processes read; *worst* is the
longest that one of them waited.

With several numbers of users, a straight line through the seconds says what 10,000,000 would take.
"""

import argparse
import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import redis
from measure import machine

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("users", type=int, nargs="*", default=[1_000_000])
    parser.add_argument(
        "--program", default=shutil.which("redis-server", path="/usr/bin"), help="another server"
    )
    options = parser.parse_args()
    print(machine())
    taken: dict[str, list[float]] = {}
    for users in options.users:
        for row in compare(users, options.program):
            taken.setdefault(row.name, []).append(row.encoded + (row.staged or 0))
    if len(options.users) > 1:
        print("\n10,000,000 users, by a straight line through the measured, encoded and staged:")
        for name, seconds in taken.items():
            slope, start = np.polyfit(options.users, seconds, 1)
            print(f"{name:>28} {start + slope * 10_000_000:8.1f} s")


@dataclass
class Row:
    name: str
    encoded: float
    staged: float | None = None
    verified: float | None = None
    swapped: float | None = None
    back: float | None = None
    memory: float = 0.0


def compare(users: int, program: str | None) -> list[Row]:
    """Print the tables for one number of users."""
    rows: list[Row] = []
    lists = made(users)
    with server(program) as (client, port):
        print(f"\n{users:,} users, Redis {client.info('server')['redis_version']}")
        rival, memory = measured(client, users, partial(set_json, client, lists.users))
        rows.append(Row("SET of JSON", rival, memory=memory))
    buckets = 4096 * 2 ** round(np.log2(max(users / 1_000_000, 1)))
    for encoding in ("text", "int32"):
        settings = ServingSettings(encoding=encoding, buckets=buckets)
        small = settings.model_copy(update={"buckets": 4 * buckets})
        for name, layout, more in (
            (encoding, settings, []),
            (f"{encoding}, compact", small, COMPACT),
        ):
            with server(program, more) as (client, port):
                rows.append(ours(client, layout, name, lists, users))
        with server(program) as (client, port):
            piped = pipe(encode_version(settings, "piped", lists), settings, port)
            print(
                f"{encoding}: redis-cli --pipe takes {piped:.2f} s, {piped / (rows[-2].staged or 1):.2f} x our staging"
            )
    heads = ("encoded", "staged", "verified", "swapped", "back", "bytes/user", "speed", "memory")
    print(f"{'seconds':>16} {' '.join(f'{head:>10}' for head in heads)}")
    for row in rows:
        times = (row.encoded, row.staged, row.verified, row.swapped, row.back)
        shown = " ".join(" " * 10 if value is None else f"{value:10.2f}" for value in times)
        speed = rival / (row.encoded + (row.staged or 0))
        print(
            f"{row.name:>16} {shown} {row.memory:10.0f} {speed:9.1f}x {row.memory / rows[0].memory:9.2f}x"
        )
    with server(program) as (client, port):
        read(client, port, lists, users)
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


def ours(
    client: redis.Redis, settings: ServingSettings, name: str, lists: VersionLists, users: int
) -> Row:
    """Two versions: the first from nothing, for the memory; the second while the first is live, which is timed."""
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
    return Row(name, *np.diff(times), memory=memory)


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


def read(client: redis.Redis, port: int, lists: VersionLists, users: int) -> None:
    """One process reads all layouts in turn; then two read while a version is published."""
    settings = {
        encoding: ServingSettings(encoding=encoding, prefix=encoding)
        for encoding in ("text", "int32")
    }
    set_json(client, lists.users.head(100_000))
    for layout in settings.values():
        publish(client, layout, "v1", lists)
    asked = [
        str(FIRST_USER + user)
        for user in np.random.default_rng(2).integers(0, min(users, 100_000), READS)
    ]
    store = RecommendationStore(client, settings["text"])
    ways = {
        "GET": lambda user: client.get(f"recs:{user}"),
        "GET and json.loads": lambda user: json.loads(client.get(f"recs:{user}")),
        **{
            f"HMGET {encoding}": partial(hmget, client, layout)
            for encoding, layout in settings.items()
        },
        "RecommendationStore": store.recommendations,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for user in asked:
        for name, way in ways.items():
            began = time.perf_counter()
            way(user)
            seconds[name].append(time.perf_counter() - began)
    bare = np.quantile(seconds["GET"], 0.99)
    for name, taken in seconds.items():
        median, high = np.quantile(taken, [0.5, 0.99])
        print(
            f"{name:>28}: median {median * 1e6:5.0f} µs, p99 {high * 1e6:5.0f} µs, {high / bare:.2f} x GET's p99"
        )
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(time.sleep, [1, 1])  # both are up
        found = pool.map_async(waited, [port] * 2, chunksize=1)
        time.sleep(0.5)
        began = time.perf_counter()
        publish(client, settings["text"], "v2", lists)
        took = time.perf_counter() - began
        client.set("stop", 1)
        every = np.concatenate(found.get())
    print(
        f"while {users:,} users are published ({took:.1f} s): {len(every):,} reads by 2 processes, p99 "
        f"{np.quantile(every, 0.99) * 1e3:.1f} ms, worst {every.max() * 1e3:.0f} ms"
    )


def hmget(client: redis.Redis, settings: ServingSettings, user: str) -> Any:
    return client.hmget(
        live_key(settings, bucket_of(settings, user)),
        [field_of("user", user), b"_popular", b"_version"],
    )


def waited(port: int) -> list[float]:
    """Seconds of each read until somebody says stop."""
    client = redis.Redis(port=port)
    store, chance, seconds = (
        RecommendationStore(client, ServingSettings(prefix="text")),
        np.random.default_rng(port),
        [],
    )
    while not client.exists("stop"):
        for user in chance.integers(0, 100_000, 200):
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


if __name__ == "__main__":
    main()
