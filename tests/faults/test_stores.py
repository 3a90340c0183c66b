"""Blob storage or Redis is away, full or refuses: an error, no change, then a try that succeeds."""

from itertools import pairwise

import pytest
import redis
from support.pipeline import Pipeline, differing
from support.two_days import SECOND_DAY, TwoDays, redis_connection

from recsys_ops.demo import services
from recsys_ops.ingest.steps import STEPS
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation


@pytest.mark.parametrize(
    "task",
    ["extract_delta", "align_schema", "commit_history", "build_matrix", "train", "refresh_redis"],
)
def test_storage_that_is_away_is_named(pipeline: Pipeline, two_days: TwoDays, task: str) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, task])
    before = pipeline.state()
    outcome = pipeline.run(task, SECOND_DAY, env={"RECSYS_STORAGE__ROOT": "file:///dev/null/blob"})
    assert outcome.error == "StorageError"
    assert "file:///dev/null/blob" in outcome.message
    assert differing(pipeline.state(), before) == []


@pytest.mark.parametrize("task", ["extract_delta", "fix_types", "commit_history", "build_matrix"])
def test_a_full_disk_spares_old_objects_and_the_next_try_succeeds(
    pipeline: Pipeline, two_days: TwoDays, task: str
) -> None:
    pipeline.restore(two_days.end)
    before = pipeline.state()
    outcome = pipeline.run(task, SECOND_DAY, max_file_bytes=4096)
    assert outcome.error == "StorageError"
    assert "cannot write" in outcome.message
    assert differing(pipeline.state(), before) == []
    pipeline.succeed((task,), SECOND_DAY)


def test_a_redis_that_is_away_is_named_and_the_next_try_publishes(
    pipeline: Pipeline, two_days: TwoDays, redis_url: str
) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, "refresh_redis"])
    before = pipeline.state()
    port = services.free_port()
    outcome = pipeline.run(
        "refresh_redis",
        SECOND_DAY,
        env={"AIRFLOW_CONN_RECSYS_REDIS": redis_connection(redis_url, port=port)},
    )
    assert outcome.error == "ServingError"
    assert f"127.0.0.1:{port}" in outcome.message
    assert "cannot be reached" in outcome.message
    assert differing(pipeline.state(), before) == []
    pipeline.succeed(("refresh_redis",), SECOND_DAY)
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, "refresh_redis"]) == []


@pytest.mark.parametrize(
    "rights", ["", "~* +@read"], ids=["a wrong password", "an account that only reads"]
)
def test_a_redis_that_refuses_the_account_is_left_as_it_is(
    pipeline: Pipeline, two_days: TwoDays, redis_url: str, redis_client: redis.Redis, rights: str
) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, "refresh_redis"])
    before = pipeline.state()
    redis_client.execute_command(
        "ACL", "SETUSER", "guest", "reset", "on", ">right", *rights.split()
    )
    try:
        guest = redis_connection(redis_url, login="guest", password="right" if rights else "wrong")
        outcome = pipeline.run(
            "refresh_redis", SECOND_DAY, env={"AIRFLOW_CONN_RECSYS_REDIS": guest}
        )
    finally:
        redis_client.execute_command("ACL", "DELUSER", "guest")
    assert outcome.error == "ServingError"
    assert "check user, password and rights in the Redis connection" in outcome.message
    assert differing(pipeline.state(), before) == []


def test_a_redis_that_lost_everything_is_filled_again(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.end)
    live = pipeline.live()
    pipeline.redis.flushall()
    pipeline.succeed(("refresh_redis",), SECOND_DAY)
    assert differing(pipeline.served(), live) == []


CUT = [
    ("raw/day={day}", "align_schema", "extract_delta"),
    *(
        (f"cleaning/day={{day}}/{step}.parquet", reader, step)
        for step, reader in pairwise([*STEPS, "commit_history"])
    ),
    ("catalogue/day={day}", "build_matrix", "extract_catalogue"),
    ("jobs/day={day}/train.npz", "train", "build_matrix"),
    ("jobs/day={day}/spec.json", "train", "build_matrix"),
    ("jobs/day={day}/spec.json", "evaluate", "build_matrix"),
    ("models/{version}/evaluation.npz", "evaluate", "train"),
    ("models/{version}/manifest.json", "evaluate", "train"),
    ("models/{version}/metrics.json", "gate", "evaluate"),
    ("models/{version}/verdict.json", "refresh_redis", "gate"),
]


# objects that are read as a whole, by their footer, and from memory
CUT_ON_AZURITE = [
    cut for cut in CUT if cut[1] in ("align_schema", "commit_history", "build_matrix")
]


@pytest.mark.parametrize(
    ("pipeline", "name", "reader", "writer"),
    [("folder", *cut) for cut in CUT]
    + [pytest.param("azurite", *cut, marks=pytest.mark.azurite) for cut in CUT_ON_AZURITE],
    indirect=["pipeline"],
    ids=str,
)
def test_half_an_object_is_named_and_writing_it_again_mends_it(
    pipeline: Pipeline, two_days: TwoDays, name: str, reader: str, writer: str
) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, reader])
    version = (
        pipeline.storage.read_json(paths.job(SECOND_DAY, "spec.json"))["version"]
        if "{version}" in name
        else ""
    )
    path = name.format(day=SECOND_DAY, version=version)
    if path.endswith(f"day={SECOND_DAY}"):
        path = current_generation(pipeline.storage, path.partition("/")[0], SECOND_DAY)
    whole = pipeline.storage.get(path)
    for length in (0, len(whole) // 2):
        pipeline.storage.put(path, whole[:length])
        before = pipeline.state()
        outcome = pipeline.run(reader, SECOND_DAY)
        assert outcome.error == "DamagedError" or "ModelError" in outcome.message
        assert path in outcome.message
        assert "again" in outcome.message
        assert differing(pipeline.state(), before) == []
    pipeline.succeed((writer, reader), SECOND_DAY)
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, reader]) == []


def test_a_task_started_before_its_time_says_which_object_is_not_there(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, "align_schema"])
    outcome = pipeline.run("fix_types", SECOND_DAY)
    assert outcome.error == "StorageError"
    assert (
        f"cleaning/day={SECOND_DAY}/align_schema.parquet is not there: "
        "run the task that writes it first" in outcome.message
    )
