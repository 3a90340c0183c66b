"""### Clean yesterday's events and store them in the history

A run is about one **day**: 24 hours from midnight UTC, the last complete ones before the run's
date. It reads that day and the few days before it from the production database, and days that the
history lacks (`source.catch_up_days`). It cleans their rows step by step and replaces those days in
the history. No delivery is overwritten, and a run in which a day lost rows that it had is refused,
in the database or by a filter. Every rejected row is stored in
`quarantine/day=…` with its reason. The figures of every task are in `reports/day=…`. At the end the
run deletes what is older than its retention time (`raw_retention_days`, `retention_days`,
`models`).

Days may run in any order, repeatedly, and four at a time. To run days of the past again:
`make backfill FROM=… TO=…`. A backfill reads each day alone and starts no retraining.

**Trigger form**

- `day`: another day than yesterday.
- `lookback_days`: how many days before it to read as well. For a first load, trigger one run with
  the number of days that the shop has.
- `accept_reason`: why days may lose more rows than `source.min_kept_share` allows. It is recorded.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param, TaskGroup, chain

from recsys_ops.operators.alerts import alert
from recsys_ops.operators.announce_day import AnnounceDayOperator
from recsys_ops.operators.cleaning_step import CleaningStepOperator
from recsys_ops.operators.commit_history import CommitHistoryOperator
from recsys_ops.operators.expire import ExpireOperator
from recsys_ops.operators.extract_delta import ExtractDeltaOperator
from recsys_ops.operators.rollback import offer_versions

with DAG(
    "recsys_ingest",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    dagrun_timeout=timedelta(hours=4),
    default_args={
        "owner": "recsys",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=1),
        "on_failure_callback": alert,
    },
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The day to ingest, YYYY-MM-DD; empty: yesterday",
        ),
        "lookback_days": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            maximum=366,
            description="How many days before it to read as well",
        ),
        "accept_reason": Param(
            None,
            type=["null", "string"],
            minLength=5,
            description="Why days may lose rows that they had",
        ),
    },
    tags=["recsys", "ingest"],
    doc_md=__doc__,
):
    with TaskGroup("ingest", prefix_group_id=False):
        extract_delta = ExtractDeltaOperator(task_id="extract_delta", sql="extract_events.sql")

    with TaskGroup("clean", prefix_group_id=False):
        cleaning_steps = [
            CleaningStepOperator(task_id="align_schema"),
            CleaningStepOperator(task_id="fix_types"),
            CleaningStepOperator(task_id="deduplicate"),
            CleaningStepOperator(task_id="filter_crawlers"),
            CleaningStepOperator(task_id="filter_bots"),
            CleaningStepOperator(task_id="filter_staff"),
        ]

    commit_history = CommitHistoryOperator(task_id="commit_history")
    expire = ExpireOperator(task_id="expire", on_success_callback=offer_versions)
    announce_day = AnnounceDayOperator(task_id="announce_day", outlets=[Asset("recsys_history")])

    chain(extract_delta, *cleaning_steps, commit_history, [announce_day, expire])
