"""The readers of docs/reference/redis-layout.md, on a published version."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
from support.packages import NODE, npm_install
from support.redis_lists import with_users

from recsys_ops.serving.layout import VersionLists
from recsys_ops.serving.publish import publish
from recsys_ops.settings import ServingSettings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "redis-layout.md"
HERE = Path(__file__).with_name("reader")
USERS = {"ann": ["a", "b"], "Zoë 😀": ["c,d", "100%", "%2C"], "_popular": ["e"], "__x": ["Ünïcode"]}
EXPECTED = [[items, "v1"] for items in USERS.values()] + [[["v1-top"], "v1"]]


@pytest.fixture
def published(redis_client: redis.Redis, v1: VersionLists) -> redis.Redis:
    publish(redis_client, ServingSettings(), "v1", with_users(v1, USERS))
    return redis_client


def example(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return code


def test_the_reader_in_python(published: redis.Redis) -> None:
    namespace: dict[str, Any] = {}
    exec(example("python"), namespace)

    assert [
        list(namespace["recommendations"](published, user)) for user in [*USERS, "unknown"]
    ] == EXPECTED


def test_the_reader_in_javascript(published: redis.Redis, redis_url: str) -> None:
    ask = f"""
        import {{ createClient }} from "redis";
        const client = await createClient({{ url: {json.dumps(redis_url)} }}).connect();
        const answers = [];
        for (const user of {json.dumps([*USERS, "unknown"])})
          answers.push(await recommendations(client, user));
        console.log(JSON.stringify(answers));
        await client.close();
    """

    done = subprocess.run(
        [NODE, "--input-type=module", "-"],
        input=example("javascript") + ask,
        cwd=npm_install(HERE),
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == EXPECTED
