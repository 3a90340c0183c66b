"""The how-to "Add a cleaning filter", followed literally on a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "add-a-filter.md"
BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
DAY = """
import json, sys
from support.delivery import DAY, SETTINGS, deliver
from recsys_ops.ingest.clean_day import kept_rows, run_step
from recsys_ops.ingest.quarantine import quarantine_summary
from recsys_ops.ingest.steps import LAST_STEP, STEPS
from recsys_ops.storage.objects import Storage

storage = Storage(f"file://{sys.argv[1]}")
deliver(storage, [{}, {"product_id": "SAMPLE-1"}, {"email": "boss@shop.example"}])
for step in STEPS:
    run_step(storage, step, DAY, SETTINGS)
kept = kept_rows(storage, LAST_STEP, DAY)[0].collect()["item_id"].to_list()
print(json.dumps([kept, quarantine_summary(storage, DAY).select("step", "reason", "rows").rows()]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the changes of the page."""
    copy = tmp_path / "project"
    for name in ("plugins", "dags", "include", "tests"):
        ignored = shutil.ignore_patterns("node_modules", "__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for language, file, content in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            assert not (copy / file).exists()
            (copy / file).write_text(content)
        else:
            change(copy / file, content.splitlines(keepends=True))
    return copy


def change(file: Path, diff: list[str]) -> None:
    before = "".join(line[1:] for line in diff if line[0] != "+")
    after = "".join(line[1:] for line in diff if line[0] != "-")
    assert file.read_text().count(before) == 1, f"{file} has changed, the page has not: {before}"
    file.write_text(file.read_text().replace(before, after))


def run(project: Path, *command: str) -> str:
    path = os.pathsep.join(str(project / name) for name in ("plugins", "tests"))
    environment = {**os.environ, "PYTHONPATH": path, "RECSYS_INCLUDE": str(project / "include")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_new_filter_rejects_its_rows_of_a_day(project: Path, tmp_path: Path) -> None:
    kept, rejected = json.loads(run(project, "-c", DAY, str(tmp_path / "blob")).splitlines()[-1])
    assert kept == ["p1"]
    assert rejected == [["filter_staff", "staff_email", 1], ["filter_samples", "sample", 1]]


def test_the_pages_own_tests_pass(project: Path) -> None:
    commands = re.findall(r"^pytest (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        output = run(project, "-m", "pytest", "-p", "no:cacheprovider", *command.split())
        assert "[100%]" in output
