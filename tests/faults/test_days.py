"""Days without events or without good rows: the right result or a clear error; other days stay."""

import re
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from support.pipeline import INGEST, RETRAIN, Pipeline, differing, worker_killed
from support.two_days import FIRST_DAY, SECOND_DAY, TwoDays, changed_shop

from recsys_ops.demo import shop
from recsys_ops.ingest.commit import restore_day
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation

NO_LOOKBACK: dict[str, Any] = {"lookback_days": 0}
ACCEPTED = {"accept_reason": "stocktaking"}
CLEANING = CleaningSettings.model_validate(
    {
        "staff": {
            "email_domains": [shop.OFFICE_DOMAIN],
            "networks": [shop.OFFICE_NETWORK],
            "test_account_pattern": shop.TEST_ACCOUNTS,
        }
    }
)
OF_THE_DAY = f"WHERE recorded_at >= '{SECOND_DAY}T00:00:00Z'"


def test_a_day_without_events_is_accepted_with_a_reason_and_others_stay(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.end)
    before, history = pipeline.state(), pipeline.history()
    closed = SECOND_DAY + timedelta(days=1)
    outcome = pipeline.run("extract_delta", closed, params=NO_LOOKBACK)
    assert f"{closed} has no rows, usually about" in outcome.message
    assert differing(pipeline.state(), before) == []
    pipeline.succeed(INGEST, closed, params=NO_LOOKBACK | ACCEPTED)
    assert differing(pipeline.history(), history) == []


def test_a_purged_day_is_refused_then_accepted_then_restored(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL
) -> None:
    pipeline.restore(two_days.end)
    before, history = pipeline.state(), pipeline.history()
    with changed_shop(shop_url, f"DELETE FROM events {OF_THE_DAY}") as connection:
        outcome = pipeline.run("extract_delta", SECOND_DAY, params=NO_LOOKBACK, env=connection)
        assert f"{SECOND_DAY} would have 0 of its" in outcome.message
        assert differing(pipeline.state(), before) == []
        pipeline.succeed(INGEST, SECOND_DAY, params=NO_LOOKBACK | ACCEPTED, env=connection)
    assert differing(pipeline.history(), history) == [f"history {SECOND_DAY}"]
    assert f"history {SECOND_DAY}" not in pipeline.history()
    earlier, _ = restore_day(pipeline.storage, SECOND_DAY, CLEANING, min_kept_share=0.9)
    assert earlier.run_day == SECOND_DAY
    assert differing(pipeline.history(), history) == []


def test_a_filter_that_takes_a_day_away_is_refused_before_the_commit(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.end)
    before = pipeline.history()
    env = {"RECSYS_CLEANING__BOTS__MIN_EVENTS": "2", "RECSYS_CLEANING__BOTS__MIN_SIGNALS": "1"}
    pipeline.succeed(INGEST[:-1], SECOND_DAY, params=NO_LOOKBACK, env=env)
    outcome = pipeline.run("commit_history", SECOND_DAY, params=NO_LOOKBACK, env=env)
    assert f"refused, nothing was replaced: {SECOND_DAY} would have" in outcome.message
    assert differing(pipeline.history(), before) == []
    figures = pipeline.succeed(
        ("commit_history",), SECOND_DAY, params=NO_LOOKBACK | ACCEPTED, env=env
    ).figures
    assert figures["accepted"] == "stocktaking (mara)"
    assert differing(pipeline.history(), before) == [f"history {SECOND_DAY}"]


def test_a_day_of_rejects_fails_with_reasons_and_fills_the_quarantine(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL
) -> None:
    pipeline.restore(two_days.end)
    before = {**pipeline.history(), **pipeline.served()}
    with changed_shop(shop_url, f"UPDATE events SET action = 'swipe' {OF_THE_DAY}") as connection:
        pipeline.succeed(
            ("extract_delta", "align_schema"), SECOND_DAY, params=NO_LOOKBACK, env=connection
        )
        outcome = pipeline.run("fix_types", SECOND_DAY, params=NO_LOOKBACK, env=connection)
    assert outcome.message.startswith("DataError")
    assert "rows rejected, more than cleaning.max_rejected_share" in outcome.message
    assert re.search(
        r"unknown_event [\d,]+, such as row_id \d+, event_type = 'swipe'", outcome.message
    )
    quarantine = paths.quarantine("fix_types", SECOND_DAY)
    assert quarantine in outcome.message
    rejected = pipeline.storage.read_parquet(quarantine)
    delivered, refused = (
        pipeline.storage.read_parquet(path).height
        for path in (
            current_generation(pipeline.storage, paths.RAW, SECOND_DAY),
            paths.quarantine("align_schema", SECOND_DAY),
        )
    )
    assert rejected.height == delivered - refused
    assert differing({**pipeline.history(), **pipeline.served()}, before) == []


def test_a_day_without_events_trains_nothing_that_could_go_live(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.end)
    before = pipeline.served()
    later = SECOND_DAY + timedelta(days=1)
    pipeline.succeed(RETRAIN[:4], later)
    gate = pipeline.run("gate", later)
    assert gate.message.startswith("NotBlessedError")
    assert "0 users evaluated, at least 10 needed" in gate.message
    assert pipeline.run("refresh_redis", later).message.startswith("NotBlessedError")
    assert differing(pipeline.served(), before) == []


def test_a_window_without_events_says_what_to_run(pipeline: Pipeline, two_days: TwoDays) -> None:
    pipeline.restore(two_days.before[FIRST_DAY, "commit_history"])
    pipeline.succeed(("extract_catalogue",), FIRST_DAY)
    outcome = pipeline.run("build_matrix", FIRST_DAY)
    assert outcome.error == "StorageError"
    assert "run recsys_ingest" in outcome.message

    pipeline.restore(two_days.end)
    years_ago = FIRST_DAY.replace(year=2020)
    pipeline.succeed(("extract_catalogue",), years_ago)
    outcome = pipeline.run("build_matrix", years_ago)
    assert outcome.message.startswith("DataError: nothing to train on")
    assert "run recsys_ingest for those days first" in outcome.message


def test_a_worker_that_the_kernel_ended_is_reported_and_can_run_again(
    pipeline: Pipeline, two_days: TwoDays
) -> None:
    pipeline.restore(two_days.before[SECOND_DAY, "train"])
    outcome = pipeline.run("train", SECOND_DAY, disturb=worker_killed(pipeline.storage))
    assert outcome.error == "WorkerError"
    assert "ended by signal 9, most likely because memory ran out" in outcome.message
    pipeline.succeed(("train",), SECOND_DAY)
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, "train"]) == []
