"""`make demo`, as a newcomer runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
def test_the_demo_ends_with_a_better_model_and_people_who_get_something(tmp_path: Path) -> None:
    plugins = Path(__file__).parents[2] / "plugins"
    done = subprocess.run(
        [sys.executable, "-m", "recsys_ops.demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(plugins)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / ".demo" / "summary.json").read_text())
    assert (tmp_path / ".demo" / "report.md").read_text() in done.stdout

    for step in figures["cleaning"]:
        assert step["rows_in"] == step["kept"] + step["rejected"], step
        assert step["rejected"] == sum(step["reasons"].values()) > 0, step
        assert step["precision"] > 0.99, step
        assert step["recall"] > 0.99, step
    assert (
        figures["history"]["found"] == figures["history"]["planted"] == figures["history"]["rows"]
    )
    assert figures["history"]["found_late"] == figures["history"]["planted_late"] > 0

    first, second = figures["models"]
    assert "champion" not in first["metrics"]
    assert "against champion" in second["verdict"]
    for model in (first, second):
        assert model["verdict"].startswith("blessed")
        assert (
            model["metrics"]["challenger"]["ndcg@20"]
            > 1.4 * model["metrics"]["popularity"]["ndcg@20"]
        )

    *customers, unknown_user = figures["people"]
    assert [person["source"] for person in figures["people"]] == ["personal"] * 3 + ["popular"]
    assert len({tuple(person["gets"]) for person in customers}) == 3
    assert all(
        len(person["gets"]) == 20 and not set(person["gets"]) & set(person["did"])
        for person in customers
    )
    assert len(unknown_user["gets"]) == 20
    assert [shown["source"] for shown in figures["items"]] == [
        "similar",
        "bought_together",
        "category",
        "trending",
    ]
    assert len({tuple(shown["gets"]) for shown in [*figures["items"], unknown_user]}) == 5
    assert len({shown["version"] for shown in [*figures["items"], *figures["people"]]}) == 1
