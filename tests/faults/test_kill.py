"""A task can be killed at any moment, and can run again at any time."""

import random
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest
from support.pipeline import (
    INGEST,
    RETRAIN,
    Outcome,
    Pipeline,
    State,
    differing,
    file_mark,
    killed_when,
)
from support.two_days import BUCKETS, FIRST_DAY, SECOND_DAY, TwoDays, params

EVERY_TASK = [(SECOND_DAY, task) for task in (*INGEST, *RETRAIN)] + [
    (FIRST_DAY, "commit_history"),
    (FIRST_DAY, "refresh_redis"),
]
Kill = Callable[..., Outcome]
BACKFILL: dict[str, Any] = {"run_type": "backfill", "params": {"lookback_days": 0}}
# their kills start from the same state each
AFRESH = ("commit_history", "refresh_redis")
AZURITE = pytest.param("azurite", marks=pytest.mark.azurite)
ON_AZURITE = ("filter_crawlers", "commit_history", "build_matrix")  # objects, Delta, jobs


@pytest.mark.parametrize(
    ("pipeline", "day", "task"),
    [("folder", day, task) for day, task in EVERY_TASK]
    + [pytest.param("azurite", SECOND_DAY, task, marks=pytest.mark.azurite) for task in ON_AZURITE],
    indirect=["pipeline"],
    ids=str,
)
def test_a_task_killed_at_any_moment_and_run_again_leaves_the_same_bytes(
    pipeline: Pipeline, two_days: TwoDays, day: date, task: str
) -> None:
    """Slow: a task runs about ten times, and twice as often where each kill starts afresh."""
    before, after = two_days.before[day, task], two_days.after[day, task]
    kills = [
        *random_kills(pipeline, two_days, day, task),
        *marked_kills(pipeline, two_days, day, task),
    ]
    for in_a_row in [[kill] for kill in kills] if task in AFRESH else [kills]:
        pipeline.restore(before)
        intact = {**pipeline.history(), **pipeline.live()}
        for kill in in_a_row:
            outcome = kill(params=params(day, task))
            assert outcome.error is None, outcome
            assert_whole(pipeline, intact, after)
        pipeline.succeed((task,), day, params=params(day, task))
        assert differing(pipeline.state(), after) == []


@pytest.mark.parametrize(("day", "task"), EVERY_TASK, ids=str)
def test_a_task_run_twice_leaves_the_same_bytes(
    pipeline: Pipeline, two_days: TwoDays, day: date, task: str
) -> None:
    pipeline.restore(two_days.before[day, task])
    for _ in range(2):
        pipeline.succeed((task,), day, params=params(day, task))
        assert differing(pipeline.state(), two_days.after[day, task]) == []


@pytest.mark.parametrize("pipeline", ["folder", AZURITE], indirect=True)
def test_fifty_kills_over_a_backfill_do_not_change_the_history(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    """Slow: some eighty runs of a task."""
    chance = random.Random(50)
    days = [SECOND_DAY - timedelta(days=ago) for ago in range(4)]
    killed = 0
    for number, task in enumerate(INGEST, 1):
        for day in chance.sample(days, len(days)):
            while killed < 50 * number // len(INGEST):
                seconds = chance.uniform(0, 0.9) * two_days.seconds[SECOND_DAY, task]
                killed += pipeline.kill(task, day, seconds, **BACKFILL).killed
                if chance.random() < 0.3:
                    break
            pipeline.succeed((task,), day, **BACKFILL)
    assert killed == 50
    undisturbed = pick(two_days.after[SECOND_DAY, "commit_history"], "history ")
    assert pipeline.history() == {f"history {day}": undisturbed[f"history {day}"] for day in days}


def test_a_worker_that_outlives_its_task_does_not_harm_the_next_try(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, "train"])
    factors = next(
        path for path in two_days.written[SECOND_DAY, "train"] if path.name == "factors.npz"
    )
    written = killed_when(partial(file_mark, pipeline.folder / factors), alone=True)
    assert pipeline.run("train", SECOND_DAY, disturb=written).killed
    pipeline.succeed(("train",), SECOND_DAY)
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, "train"]) == []


def random_kills(pipeline: Pipeline, two_days: TwoDays, day: date, task: str) -> list[Kill]:
    """Kills at three moments between a task's beginning and its end."""
    chance = random.Random(f"{day} {task}")
    seconds = [0.7 * two_days.seconds[day, task] * chance.random() for _ in range(3)]
    before = two_days.before[day, task] if task in AFRESH else None
    return [partial(pipeline.kill, task, day, after, before=before) for after in seconds]


def marked_kills(pipeline: Pipeline, two_days: TwoDays, day: date, task: str) -> list[Kill]:
    """Kills as a task begins or ends to write some of its objects, and as Redis changes.

    The last of these kills can come too late: the task has written and ends.
    """
    chance = random.Random(f"{day} {task}")
    objects = [path for path in two_days.written[day, task] if path.parts[0] != "reports"]
    # the folder first, where the object gets a temporary name
    writes = [path.parent for path in objects]
    # the names of a Delta table's data files are new each time
    writes += [path for path in objects if path.parts[0] != "history"]
    writes = list(dict.fromkeys(writes))
    marks = [partial(pipeline.mark, path) for path in chance.sample(writes, min(5, len(writes)))]
    if task == "refresh_redis":
        keys = [
            f"recsys:{{{bucket}}}{stage}" for stage in (":next", "") for bucket in (0, BUCKETS - 1)
        ]
        marks += [partial(pipeline.redis.hget, key, "_version") for key in keys]

    def killed_at(mark: Callable[[], Any], **run: Any) -> Outcome:
        return pipeline.run(task, day, disturb=killed_when(mark), **run)

    return [partial(killed_at, mark) for mark in marks]


def assert_whole(pipeline: Pipeline, before: State, after: State) -> None:
    """History has no half day, and each bucket that readers see is the old one or the new one."""
    history, live = pipeline.history(), pipeline.live()
    assert history in (pick(before, "history "), pick(after, "history "))
    for key in live.keys() | pick(before, "redis "):
        assert live.get(key) in (before.get(key), after[key])


def pick(state: State, prefix: str) -> State:
    return {key: value for key, value in state.items() if key.startswith(prefix)}
