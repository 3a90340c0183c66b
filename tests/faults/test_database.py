"""The shop's database is away, refuses, or is not as the SQL expects: an error, and no change."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.pipeline import Pipeline, State, differing
from support.two_days import SECOND_DAY, TwoDays, administration, changed_shop, database_connection

from recsys_ops.demo import services
from recsys_ops.settings import include_dir
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation

READERS = ("extract_delta", "extract_catalogue")


@pytest.mark.parametrize("task", READERS)
def test_an_unreachable_database_is_named_and_the_next_try_succeeds(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL, task: str
) -> None:
    before = restored(pipeline, two_days, task)
    nobody_there = database_connection(shop_url, host="127.0.0.1", port=services.free_port())
    outcome = pipeline.run(task, SECOND_DAY, env={"AIRFLOW_CONN_RECSYS_DB": nobody_there})
    assert outcome.error == "SourceError"
    assert "'faults' on 127.0.0.1 does not answer" in outcome.message
    assert "check connection" in outcome.message
    assert differing(pipeline.state(), before) == []
    pipeline.succeed((task,), SECOND_DAY)
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, task]) == []


def test_a_wrong_password_is_said(pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL) -> None:
    before = restored(pipeline, two_days, "extract_delta")
    with role(shop_url, "guest", needs_password=True):
        guest = database_connection(shop_url, login="guest", password="wrong")
        outcome = pipeline.run("extract_delta", SECOND_DAY, env={"AIRFLOW_CONN_RECSYS_DB": guest})
    assert outcome.error == "SourceError"
    assert 'password authentication failed for user "guest"' in outcome.message
    assert "check connection" in outcome.message
    assert differing(pipeline.state(), before) == []


@pytest.mark.parametrize(("task", "table"), zip(READERS, ("events", "products"), strict=True))
def test_an_account_without_rights_is_said(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL, task: str, table: str
) -> None:
    before = restored(pipeline, two_days, task)
    with role(shop_url, "outsider"):
        outcome = pipeline.run(
            task,
            SECOND_DAY,
            env={"AIRFLOW_CONN_RECSYS_DB": database_connection(shop_url, login="outsider")},
        )
    assert outcome.message.startswith("DataError")
    assert f"permission denied for table {table}" in outcome.message
    assert differing(pipeline.state(), before) == []


@pytest.mark.parametrize(
    ("task", "change", "named"),
    [
        (
            "extract_delta",
            "ALTER TABLE events RENAME TO visits",
            'relation "events" does not exist',
        ),
        ("extract_delta", "ALTER TABLE events DROP COLUMN price", "column e.price does not exist"),
        ("extract_catalogue", "DROP TABLE products", 'relation "products" does not exist'),
        (
            "extract_catalogue",
            "ALTER TABLE products DROP COLUMN stock",
            'column "stock" does not exist',
        ),
    ],
)
def test_a_missing_table_or_column_is_named(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL, task: str, change: str, named: str
) -> None:
    before = restored(pipeline, two_days, task)
    with changed_shop(shop_url, change) as connection:
        outcome = pipeline.run(task, SECOND_DAY, env=connection)
    # a DataError is not retried: the next try would fail, too
    assert outcome.message.startswith("DataError")
    assert named in outcome.message
    assert "check include/sql" in outcome.message
    assert differing(pipeline.state(), before) == []


def test_a_query_that_takes_too_long_is_ended(
    pipeline: Pipeline, two_days: TwoDays, tmp_path: Path
) -> None:
    before = restored(pipeline, two_days, "extract_delta")
    env = own_sql(tmp_path, "FROM events e", "FROM (SELECT pg_sleep(60)) slow, events e")
    outcome = pipeline.run(
        "extract_delta", SECOND_DAY, env={**env, "RECSYS_SOURCE__STATEMENT_TIMEOUT_S": "1"}
    )
    assert outcome.error == "SourceError"
    assert "statement timeout" in outcome.message
    assert differing(pipeline.state(), before) == []


def test_a_database_cut_between_slices_leaves_the_old_rows(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL, tmp_path: Path
) -> None:
    before = restored(pipeline, two_days, "extract_delta")
    # slow enough to be cut while it reads the last day
    env = own_sql(tmp_path, "FROM events e", "FROM (SELECT pg_sleep(0.05)) slow, events e")

    def cut(pid: int, over: Callable[[], bool]) -> None:
        reading = (
            f"datname = '{shop_url.database}' "
            f"AND query LIKE 'COPY%' AND query LIKE '%{SECOND_DAY}%'"
        )
        with administration(shop_url) as server:
            kill = sa.text(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {reading}"
            )
            while not over() and not server.execute(kill).all():
                pass

    outcome = pipeline.run("extract_delta", SECOND_DAY, env=env, disturb=cut)
    assert outcome.error == "SourceError"
    assert "'faults'" in outcome.message and "does not answer or stopped" in outcome.message
    assert differing(pipeline.state(), before) == []
    pipeline.succeed(("extract_delta",), SECOND_DAY)
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, "extract_delta"]) == []


def test_an_extract_without_an_index_says_so_and_goes_on(
    pipeline: Pipeline, two_days: TwoDays, shop_url: sa.URL
) -> None:
    restored(pipeline, two_days, "extract_delta")
    more = """
        DROP INDEX events_recorded_at_idx;
        INSERT INTO events (recorded_at) SELECT '2020-01-01' FROM generate_series(1, 150000);
        ANALYZE events
    """
    with changed_shop(shop_url, more) as connection:
        outcome = pipeline.succeed(("extract_delta",), SECOND_DAY, env=connection)
    assert outcome.figures["full_scan"] == ["events"]
    assert differing(pipeline.state(), two_days.after[SECOND_DAY, "extract_delta"]) == []


def test_a_delivery_without_a_required_column_fails_and_names_it(
    pipeline: Pipeline, two_days: TwoDays, tmp_path: Path
) -> None:
    before = restored(pipeline, two_days, "extract_delta")
    env = own_sql(tmp_path, "e.action,", "")
    pipeline.succeed(("extract_delta",), SECOND_DAY, env=env)
    outcome = pipeline.run("align_schema", SECOND_DAY, env=env)
    assert outcome.message.startswith("ContractError")
    assert "lacks the required column event_type or action" in outcome.message
    assert "name it as an alias in the contract" in outcome.message
    assert differing(pipeline.state(), before) == [
        current_generation(pipeline.storage, paths.RAW, SECOND_DAY)
    ]


def test_a_delivery_without_the_time_of_recording_is_refused(
    pipeline: Pipeline, two_days: TwoDays, tmp_path: Path
) -> None:
    before = restored(pipeline, two_days, "extract_delta")
    outcome = pipeline.run(
        "extract_delta",
        SECOND_DAY,
        env=own_sql(tmp_path, "e.recorded_at, e.event_id", "e.event_id"),
    )
    assert outcome.message.startswith("DataError")
    assert "no column recorded_at" in outcome.message
    assert differing(pipeline.state(), before) == []


def restored(pipeline: Pipeline, two_days: TwoDays, task: str) -> State:
    pipeline.restore(two_days.before[SECOND_DAY, task])
    return pipeline.state()


def own_sql(folder: Path, old: str, new: str) -> dict[str, str]:
    """Settings with a changed query for events."""
    include = shutil.copytree(include_dir(), folder / "include")
    query = include / "sql" / "extract_events.sql"
    sql = query.read_text()
    assert old in sql
    query.write_text(sql.replace(old, new))
    return {"RECSYS_INCLUDE": str(include)}


@contextmanager
def role(shop: sa.URL, name: str, *, needs_password: bool = False) -> Iterator[None]:
    """A role that may log in, but read nothing.

    needs_password : whether the server asks for the password, which is "right"
    """
    with administration(shop) as server:
        rules = Path(server.exec_driver_sql("SHOW hba_file").scalar_one())
        trusting = rules.read_text()
        server.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        try:
            if needs_password:
                rules.write_text(f"local all {name} scram-sha-256\n{trusting}")
                server.exec_driver_sql("SELECT pg_reload_conf()")
            yield
        finally:
            rules.write_text(trusting)
            server.exec_driver_sql("SELECT pg_reload_conf()")
            server.exec_driver_sql(f"DROP ROLE {name}")
