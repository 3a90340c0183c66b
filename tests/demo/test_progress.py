"""What the demo says while it works, and what it says when Airflow does not come up."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys_ops.demo.airflow_site import Airflow
from recsys_ops.demo.progress import Progress, main


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def without_times(text: str) -> str:
    """The text with 0 for every number of seconds: they depend on how busy the machine is."""
    return re.sub(r" +\d+:\d\d  |\(\d+ s\)", lambda time: re.sub(r"\d", "0", time[0]), text)


def airflow(home: Path) -> Airflow:
    """An Airflow whose port nothing listens on."""
    return Airflow({"AIRFLOW_HOME": str(home), "AIRFLOW__API__BASE_URL": "http://127.0.0.1:1"})


def test_a_stage_says_at_once_what_it_does_then_how_long_it_takes() -> None:
    log = io.StringIO()
    with Progress(log, every=0.05).stage("Load the shop") as stage:
        assert without_times(log.getvalue()) == "  0:00  Load the shop …\n"
        stage.update("5 rows")
        time.sleep(0.2)
        stage.result = "7 rows"
    _, *between, last = without_times(log.getvalue()).splitlines()
    assert set(between) == {"  0:00  Load the shop: 5 rows (0 s)"}
    assert last == "  0:00  Load the shop: 7 rows (0 s)"


def test_on_a_terminal_a_stage_is_one_line_that_is_updated() -> None:
    terminal = Terminal()
    with Progress(terminal).stage("Load the shop"):
        time.sleep(0.7)
    first, *between, last = without_times(terminal.getvalue()).split("\r\x1b[K")[1:]
    assert first == "  0:00  Load the shop …"
    assert set(between) == {"  0:00  Load the shop … (0 s)"}
    assert last == "  0:00  Load the shop: done (0 s)\n"


def test_a_stage_that_fails_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert main("Install", sys.executable, "-c", "raise SystemExit(3)") == 3
    assert "Install: failed with exit status 3" in capfd.readouterr().out


def test_an_airflow_that_stops_ends_the_wait_with_a_sentence(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    waiting: list[str] = []
    with pytest.raises(RuntimeError, match=r"stopped before it was ready.*exit status 1") as error:
        airflow(tmp_path).wait_until_ready(process, report=waiting.append)
    assert str(tmp_path / "airflow.log") in str(error.value)


def test_a_slow_airflow_says_what_it_waits_for(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    site, waiting = airflow(tmp_path), []
    try:
        with pytest.raises(RuntimeError, match=r"not ready after 0 s; .* waits for its database"):
            site.wait_until_ready(process, timeout=0.1, report=waiting.append)
        passwords = tmp_path / "simple_auth_manager_passwords.json.generated"
        passwords.write_text('{"admin": "secret"}')
        with pytest.raises(RuntimeError, match="it still waits for its API server"):
            site.wait_until_ready(process, timeout=0.1, report=waiting.append)
    finally:
        process.communicate(b"\n")
    assert waiting[0] == "waiting for its database and the first login"
    assert waiting[-1] == "waiting for its API server"
