"""The commands `recsys_ops redis …` on a real Redis."""

# ruff: noqa: F811

import json

import pytest
import redis
from support.jobs import DAY
from support.rollback import SERVING, Task, live, refresh, storage, task  # noqa: F401

from recsys_ops import cli
from recsys_ops.ingest.catalogue import write_catalogue
from recsys_ops.models.deployments import list_deployments
from recsys_ops.serving.layout import bucket_of, live_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import live_version
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

Output = pytest.CaptureFixture[str]


def run(output: Output, *arguments: str) -> tuple[int, str, str]:
    """The exit code, the output, and the error."""
    output.readouterr()
    code = cli.main(["redis", *arguments])
    out, err = output.readouterr()
    return code, out, err.strip()


def test_status_says_what_is_live_previous_and_recorded(live: list[str], capsys: Output) -> None:
    _, second, third = live

    code, out, _ = run(capsys, "status")
    status = json.loads(run(capsys, "status", "--json")[1])

    assert code == 0
    assert f"live      {third} in 16 buckets" in out
    assert f"previous  {second} in 16 buckets" in out
    assert f"recorded  {third} in file://" in out
    assert status["versions"] == {
        "live": {third: 16},
        "previous": {second: 16},
        "next": {"nothing": 16},
    }
    assert status["fields"] > 100
    assert status["last_deployment"]["version"] == third


def test_a_swap_that_was_not_recorded_is_said_until_it_is(
    live: list[str], storage: Storage, task: Task, redis_client: redis.Redis, capsys: Output
) -> None:
    _, second, third = live
    record = storage.read_json(paths.LIVE)
    record["swapping"] = record["deployments"].pop()  # the publisher was killed after its swap
    storage.write_json(paths.LIVE, record)

    said = f"DIFFERENT {third} is live, but {second} is recorded, because the swap to {third} was"
    assert said in run(capsys, "status")[1]
    assert json.loads(run(capsys, "status", "--json")[1])["difference"].startswith(said[10:])
    assert cli.main(["models", "list"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        "swapping",
        "live",
    ]

    assert refresh(task, DAY)["live"] is True
    assert "DIFFERENT" not in run(capsys, "status")[1]
    assert storage.read_json(paths.LIVE) == record | {
        "deployments": [*record["deployments"], record["swapping"]],
        "swapping": None,
    }
    redis_client.flushall()
    assert (
        f"DIFFERENT nothing is live, but {third} is recorded: Redis was emptied"
        in run(capsys, "status")[1]
    )


def test_verify_finds_a_list_that_somebody_changed(
    live: list[str], redis_client: redis.Redis, capsys: Output
) -> None:
    code, out, _ = run(capsys, "verify")
    assert code == 0
    assert f"{live[2]}: " in out and "lists in 16 buckets are as in storage" in out

    key = live_key(SERVING, 3)
    field = next(field for field in redis_client.hkeys(key) if not field.startswith(b"_"))
    redis_client.hset(key, field, "something,else")
    code, _, error = run(capsys, "verify")
    assert code == 1
    assert f"bucket {key} does not hold version {live[2]}: " in error
    assert error.endswith(
        f"1 missing or different: check who else writes to this Redis, then publish {live[2]} again"
    )


def test_swap_back_puts_the_previous_version_live_and_blocks_the_newer(
    live: list[str],
    storage: Storage,
    task: Task,
    redis_client: redis.Redis,
    capsys: Output,
) -> None:
    _, second, third = live

    code, out, _ = run(capsys, "swap-back", "--reason", "robots bought everything")

    assert (code, out) == (0, f"{second} is live; blocked until they are released: {third}\n")
    assert live_version(find_nodes(redis_client, SERVING)) == second
    assert list_deployments(storage)[-1]["reason"] == "robots bought everything"
    assert refresh(task, DAY)["live"] is False
    code, _, error = run(capsys, "swap-back", "--reason", "once more")
    assert code == 1
    assert "no previous version in every bucket: trigger recsys_rollback" in error


def test_show_prints_a_users_items_with_their_titles(
    live: list[str],
    storage: Storage,
    redis_client: redis.Redis,
    capsys: Output,
) -> None:
    import polars as pl

    user = storage.read_parquet(paths.model(live[2], "recommendations.parquet"))["user_id"][0]
    items = storage.read_parquet(paths.model(live[2], "items.parquet"))["item_id"]
    about = {
        "title": [f"The {item}" for item in items],
        "category": ["cups"] * len(items),
        "price": ["3"] * len(items),
    }
    catalogue = pl.DataFrame({"item_id": items, **about, "stock": [1] * len(items)})
    write_catalogue(storage, DAY, catalogue, 0, None)

    code, out, _ = run(capsys, "show", user)
    first = (
        redis_client.hget(live_key(SERVING, bucket_of(SERVING, user)), user).decode().split(",")[0]
    )

    assert code == 0
    assert out.splitlines()[0] == f"{user}: personal, version {live[2]}"
    assert out.splitlines()[2].split()[:3] == [first, "The", first]
    assert run(capsys, "show", "unknown\x1b[2J")[1].startswith(
        "'unknown\\x1b[2J': popular, version"
    )


def test_a_redis_that_does_not_answer_is_one_line(
    live: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_REDIS", "redis://127.0.0.1:1")
    code, _, error = run(capsys, "show", "ann")
    assert (code, error.count("\n")) == (1, 0)
    assert "Redis 127.0.0.1:1: it cannot be reached in time" in error
