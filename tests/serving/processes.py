"""Run as a process of its own: ``publish <url> <first>`` publishes version after version until it is killed;
``read <url>`` reads until its standard input is closed, then prints what it saw as JSON."""

import json
import os
import random
import select
import sys

import polars as pl
import redis

from recsys_ops.errors import ServingError
from recsys_ops.serving.publish import publish
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import ServingSettings

SETTINGS = ServingSettings(buckets=64, top_n=5)
USERS = 3000


def publish_version(client: redis.Redis, number: int) -> None:
    """Version `number`: every item says it is of that version; each version leaves out some users."""
    users = [f"user{user}" for user in range(USERS) if (user + number) % 10]
    lists = pl.DataFrame({"user_id": users, "items": [[f"v{number}:{rank}:{user}" for rank in range(5)] for user in users]})
    publish(client, SETTINGS, f"v{number}", lists, [f"v{number}:{rank}:top" for rank in range(5)])


def read_until_closed(client: redis.Redis) -> None:
    store = RecommendationStore(client, SETTINGS)
    chance = random.Random(os.getpid())
    reads, missing, mixed, versions = 0, 0, 0, set()
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(200):
            reads += 1
            user = f"user{chance.randrange(USERS)}"
            try:
                answer = store.get(user)
            except ServingError:
                missing += 1
                continue
            versions.add(answer.version)
            owner = user if answer.source == "personal" else "top"
            mixed += answer.items != [f"{answer.version}:{rank}:{owner}" for rank in range(5)]
            mixed += (answer.source == "popular") != ((int(user[4:]) + int(answer.version[1:])) % 10 == 0)
    print(json.dumps({"reads": reads, "missing": missing, "mixed": mixed, "versions": len(versions)}))


if __name__ == "__main__":
    redis_client = redis.Redis.from_url(sys.argv[2])
    if sys.argv[1] == "read":
        read_until_closed(redis_client)
    else:
        version = int(sys.argv[3])
        while True:
            publish_version(redis_client, version)
            version += 1
