"""The command line, as a person at a terminal sees it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.azurite.server import Azurite
from support.delivery import DAY, deliver
from support.history_rows import events

import recsys_ops
from recsys_ops.cli.tables import format_rows
from recsys_ops.history.table import replace_days
from recsys_ops.ingest.clean_day import run_step
from recsys_ops.ingest.steps import STEPS
from recsys_ops.settings import CleaningSettings
from recsys_ops.storage.objects import Storage

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def run(root: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recsys_ops", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(recsys_ops.__file__).parents[1]),
            "RECSYS_STORAGE__ROOT": root,
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def fill(storage: Storage) -> None:
    for ago, count in [(5, 1000), (4, 1200), (1, 550)]:
        day = YESTERDAY - timedelta(days=ago - 1)
        replace_days(
            storage,
            events(day, count),
            day,
            day,
            metadata={"run": "scheduled__x", "contract_version": "2"},
        )


def test_history_status_shows_days_missing_days_medians_and_the_last_run(tmp_path: Path) -> None:
    fill(Storage(f"file://{tmp_path}"))
    done = run(f"file://{tmp_path}", "history", "status")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    missing = [YESTERDAY - timedelta(days=ago) for ago in (2, 1)]
    assert "2,750 rows" in lines[0]
    assert lines[1] == f"days missing: {missing[0]} … {missing[1]}"
    assert (
        "run scheduled__x, contract_version 2" in lines[2]
        or "contract_version 2, run scheduled__x" in lines[2]
    )
    assert lines[-1].split()[:3] == [str(YESTERDAY), "550", "50%"]
    assert lines[-2].split() == [str(missing[1]), "missing"]


def test_history_shows_a_days_generations_and_restores_one(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    deliver(storage, [{"user_id": f"u{n}"} for n in range(4)])
    deliver(storage, [{}])
    header, *lines, current = run(storage.root, "history", "status", str(DAY)).stdout.splitlines()
    assert header.split() == ["generation", "written", "rows", "run_day", "run", "accepted"]
    # number, date and time, rows, run day, run, reason
    assert [(line.split()[0], line.split()[3]) for line in lines] == [("1", "4"), ("2", "1")]
    assert current == "the last one, 2, is current"
    done = run(storage.root, "history", "restore", str(DAY))
    assert done.stdout.splitlines()[0].startswith("generation 1, written ")
    assert done.stdout.splitlines()[1] == f"{DAY}: 4 rows in the history"
    (first, second, third) = json.loads(
        run(storage.root, "history", "status", str(DAY), "--json").stdout
    )
    assert (first["rows"], second["rows"], third["rows"]) == (4, 1, 4)
    assert third["run"] == "restore of generation 1"
    gone = run(storage.root, "history", "restore", "2020-01-01")
    assert gone.stderr.startswith("DataError: no raw object holds 2020-01-01")


def test_history_status_as_json_can_be_read_by_machines(tmp_path: Path) -> None:
    fill(Storage(f"file://{tmp_path}"))
    answer = json.loads(
        run(f"file://{tmp_path}", "history", "status", "--json", "--days", "1").stdout
    )
    assert [day["rows"] for day in answer["days"]] == [550]
    assert answer["missing"] == [str(YESTERDAY - timedelta(days=ago)) for ago in (2, 1)]


@pytest.mark.azurite
def test_history_status_reads_the_storage_account_of_airflows_connection(
    azurite_server: Azurite,
) -> None:
    storage = Storage(f"{azurite_server.container()}/shop", azurite_server.options)
    fill(storage)
    connection = {
        "conn_type": "wasb",
        "login": azurite_server.options["account_name"],
        "password": azurite_server.key,
    }
    done = run(
        storage.root,
        "history",
        "status",
        AIRFLOW_CONN_RECSYS_BLOB=json.dumps(connection),
        AZURE_STORAGE_USE_EMULATOR="true",
    )
    assert done.returncode == 0, done.stderr
    assert "550" in done.stdout


def test_an_error_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    done = run(f"file://{tmp_path}", "history", "status")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("StorageError: no history at")
    assert "Traceback" not in done.stderr


def test_a_missing_connection_is_named() -> None:
    done = run("abfs://shop/recsys", "history", "status", RECSYS_STORAGE__CONN_ID="nowhere")
    assert done.returncode == 1
    assert "SettingsError: Airflow has no connection nowhere" in done.stderr.splitlines()[-1]


def test_a_tables_last_column_is_wrapped_to_the_terminals_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"rule": "champion", "value": None, "sentence": "one word and another " * 8}]
    monkeypatch.setenv("COLUMNS", "100")
    lines = format_rows(rows).splitlines()
    assert lines[0].split() == ["rule", "value", "sentence"]
    assert lines[1].startswith("champion  –      one word")
    assert {line[:17] for line in lines[2:]} == {" " * 17}
    assert max(map(len, lines)) <= 100
    assert " ".join(line[17:] for line in lines[1:]) == rows[0]["sentence"].strip()
    monkeypatch.setenv("COLUMNS", "1000")
    assert len(format_rows(rows).splitlines()) == 2


def test_a_wrong_call_shows_how_to_call(tmp_path: Path) -> None:
    done = run(f"file://{tmp_path}", "history", "statuses")
    assert (done.returncode, "usage: recsys_ops" in done.stderr) == (2, True)


def test_quarantine_shows_why_rows_were_rejected_and_replays_a_day(
    tmp_path: Path,
) -> None:
    storage = Storage(f"file://{tmp_path}")
    deliver(storage, [{}, {"quantity": "1_000"}, {"quantity": "many"}, {"user_id": "u3"}])
    for step in STEPS:
        run_step(storage, step, DAY, CleaningSettings())
    header, line = run(storage.root, "quarantine", "show", str(DAY)).stdout.splitlines()
    assert header.split() == ["step", "reason", "column", "rows", "row_id", "value"]
    assert line.split() == ["fix_types", "not_an_integer", "quantity", "2", "1", "1_000"]
    rows = run(
        storage.root,
        "quarantine",
        "show",
        str(DAY),
        "--step",
        "fix_types",
        "--reason",
        "not_an_integer",
        "--rows",
        "1",
    )
    assert [row.split()[0] for row in rows.stdout.splitlines()] == ["row_id", "1"]
    replayed = run(storage.root, "quarantine", "replay", str(DAY))
    assert replayed.stdout.splitlines() == [
        f"the run of {DAY} rejects not_an_integer 2",
        f"{DAY}: 2 rows in the history",
    ]
    missing = run(storage.root, "quarantine", "replay", "2020-01-01")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("DataError: no raw object holds 2020-01-01")
