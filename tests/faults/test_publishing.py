"""Only a complete, blessed version of the right day goes live, and only from a run that may."""

import json

import pytest
from support.pipeline import RETRAIN, Pipeline, differing
from support.two_days import FIRST_DAY, SECOND_DAY, TwoDays

from recsys_ops.storage import paths

TASKS_TEST = "__airflow_temporary_run_2026-05-11T02:00:00+00:00__"


@pytest.mark.parametrize("name", ["recommendations.parquet", "popular.parquet", "factors.npz"])
def test_a_changed_file_of_the_model_is_named_and_not_published(
    pipeline: Pipeline, two_days: TwoDays, name: str
) -> None:
    path = paths.model(restored(pipeline, two_days), name)
    data = bytearray(pipeline.storage.get(path))
    data[len(data) // 2] ^= 1
    pipeline.storage.put(path, bytes(data))
    refused(pipeline, "ModelError", f"{path} is damaged (SHA-256 differs)")


def test_a_version_whose_training_did_not_finish_is_not_published(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    version = restored(pipeline, two_days)
    (pipeline.folder / paths.model(version, "manifest.json")).unlink()
    refused(pipeline, "ModelError", f"there is no finished model version {version}")


@pytest.mark.parametrize(
    "changed", [{"blessed": False}, {"blessed": "yes"}, {"version": "20260509-0000000000"}]
)
def test_a_verdict_that_does_not_bless_this_version_publishes_nothing(
    pipeline: Pipeline, two_days: TwoDays, changed: dict[str, object]
) -> None:
    version = restored(pipeline, two_days)
    path = paths.model(version, "verdict.json")
    pipeline.storage.write_json(path, {**pipeline.storage.read_json(path), **changed})
    refused(pipeline, "NotBlessedError", version)


def test_what_the_gate_refused_is_not_published(pipeline: Pipeline, two_days: TwoDays) -> None:
    restored(pipeline, two_days)
    strict = {"RECSYS_GATE__MIN_USERS": "100000"}
    gate = pipeline.run("gate", SECOND_DAY, env=strict)
    assert gate.message.startswith("NotBlessedError")
    assert "at least 100,000 needed" in gate.message
    refused(pipeline, "NotBlessedError", "at least 100,000 needed")


def test_retraining_the_live_day_again_changes_nothing(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.end)
    before = pipeline.state()
    assert pipeline.succeed(RETRAIN, SECOND_DAY).figures["live"] is True
    assert differing(pipeline.state(), before) == []


def test_an_older_day_leaves_redis_alone_unless_somebody_says_why(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.end)
    live = pipeline.live()
    figures = pipeline.succeed(RETRAIN, FIRST_DAY).figures
    assert figures["live"] is False
    assert figures["held_back"] == f"the live version has seen {SECOND_DAY} already"
    live_now = deployments(pipeline)[-1]["version"]
    assert "), no day missing, " in figures["night"]
    assert f"; live: {live_now} ({figures['version']} is held back: the live" in figures["night"]
    assert staged_versions(pipeline) == set()
    assert differing(pipeline.live(), live) == []

    figures = pipeline.succeed(
        ("refresh_redis",), FIRST_DAY, params={"publish_reason": "robots in yesterday's events"}
    ).figures
    assert figures["live"] is True
    assert live_versions(pipeline) == {figures["version"]}
    assert deployments(pipeline)[-1] == {
        "version": figures["version"],
        "day": str(FIRST_DAY),
        "reason": "robots in yesterday's events",
        "by": "mara",
    }


@pytest.mark.parametrize("params", [{}, {"publish_reason": "because I say so"}])
def test_airflow_tasks_test_never_publishes(
    pipeline: Pipeline, two_days: TwoDays, params: dict[str, str]
) -> None:
    restored(pipeline, two_days)
    live, past = pipeline.live(), deployments(pipeline)
    figures = pipeline.succeed(
        ("refresh_redis",), SECOND_DAY, run_id=TASKS_TEST, run_type="manual", params=params
    ).figures
    assert (figures["live"], figures["held_back"]) == (False, "a tasks test publishes nothing")
    assert staged_versions(pipeline) == set()
    assert differing(pipeline.live(), live) == []
    assert deployments(pipeline) == past


def test_a_backfill_publishes_only_with_a_reason(pipeline: Pipeline, two_days: TwoDays) -> None:
    version = restored(pipeline, two_days)
    live = pipeline.live()
    figures = pipeline.succeed(("refresh_redis",), SECOND_DAY, run_type="backfill").figures
    assert (figures["live"], figures["held_back"]) == (False, "a backfill publishes nothing")
    assert differing(pipeline.live(), live) == []

    pipeline.succeed(
        ("refresh_redis",),
        SECOND_DAY,
        run_type="backfill",
        params={"publish_reason": "Redis was replaced"},
    )
    assert live_versions(pipeline) == {version}


def restored(pipeline: Pipeline, two_days: TwoDays) -> str:
    """Restore the pipeline as it was before the second day's publishing; returns the version."""
    pipeline.restore(two_days.before[SECOND_DAY, "refresh_redis"])
    return str(pipeline.storage.read_json(paths.job(SECOND_DAY, "spec.json"))["version"])


def refused(pipeline: Pipeline, error: str, named: str) -> None:
    """Publishing fails with an error that contains `named`, and changes no store."""
    before = pipeline.state()
    outcome = pipeline.run("refresh_redis", SECOND_DAY)
    assert outcome.error == "AirflowFailException"
    assert outcome.message.startswith(error)
    assert named in outcome.message
    assert differing(pipeline.state(), before) == []


def deployments(pipeline: Pipeline) -> list[dict[str, str]]:
    return list(json.loads(pipeline.storage.get(paths.LIVE))["deployments"])


def live_versions(pipeline: Pipeline) -> set[str]:
    return {content[b"_version"].decode() for content in pipeline.live().values()}


def staged_versions(pipeline: Pipeline) -> set[str]:
    return {
        content[b"_version"].decode()
        for key, content in pipeline.served().items()
        if key.endswith(":next")
    }
