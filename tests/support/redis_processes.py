"""Publishers and readers of Redis as processes of their own.

``publish <address>``: for each number on standard input a process is started, whose id is printed.
It publishes version after version, beginning with that number, until it is killed.
``read <address>``: reads until standard input is closed, then prints what it saw as JSON.
An address is JSON, as in the environment.
"""

import itertools
import json
import os
import random
import select
import signal
import sys
import time

import numpy as np

from recsys_ops.errors import ServingError
from recsys_ops.serving.client import RedisClient, connect_redis, parse_address
from recsys_ops.serving.publish import publish
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings
from support.redis_lists import lists_of

SETTINGS = ServingSettings(buckets=64)
USERS = 3000


def publish_version(client: RedisClient, number: int) -> None:
    """Publish a version whose items name it; each version leaves out some users and some items."""
    lists = {
        f"{user}": [f"v{number}:{rank}:{user}" for rank in range(5)]
        for user in range(USERS)
        if (user + number) % 10
    }
    top = [f"v{number}:{rank}:top" for rank in range(5)]
    publish(client, SETTINGS, f"v{number}", lists_of(lists, top, similar=lists))


def read_until_closed(client: RedisClient) -> None:
    store = RecommendationStore(client, SETTINGS)
    chance = random.Random(os.getpid())
    missing, mixed, versions, seconds, errors = 0, 0, set(), [], []
    store.version()
    print("reading", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(200):
            name = str(chance.randrange(USERS))
            read, own_source = chance.choice(
                [(store.recommendations, "personal"), (store.similar, "similar")]
            )
            started = time.monotonic()
            try:
                answer = read(name)
            except ServingError as error:
                missing += "nothing is published" in str(error)
                errors.append((started, time.monotonic()))
                continue
            seconds.append(time.monotonic() - started)
            versions.add(answer.version)
            owner = name if answer.source == own_source else "top"
            mixed += answer.items != [f"{answer.version}:{rank}:{owner}" for rank in range(5)]
            mixed += (answer.source == "popular") != (
                (int(name) + int(answer.version[1:])) % 10 == 0
            )
    seen = {
        "reads": len(seconds),
        "missing": missing,
        "mixed": mixed,
        "versions": len(versions),
        "errors": errors,
    }
    print(json.dumps(seen | {"p99_s": float(np.quantile(seconds, 0.99)), "worst_s": max(seconds)}))


if __name__ == "__main__":
    redis_client = connect_redis(
        parse_address("of the test", json.loads(sys.argv[2])), timeout_s=10, retries=0
    )
    if sys.argv[1] == "read":
        read_until_closed(redis_client)
        sys.exit()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        # no thread was started yet: a fork is safe, and much faster than another interpreter
        if child := os.fork():
            print(child, flush=True)
            continue
        for number in itertools.count(int(line)):
            publish_version(redis_client, number)
