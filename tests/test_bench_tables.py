"""The tables in the pages are those of benchmarks/results."""

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import RESULTS, Report, machine_folder, render
from benchmarks.tables import PAGES, PLACE, ROOT, fill


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tables_of_a_page_are_those_of_the_result_files(page: Path) -> None:
    text = page.read_text()
    assert fill(text) == text, "run make bench-tables"


def test_pages_show_every_benchmark() -> None:
    shown = {place["file"] for page in PAGES for place in PLACE.finditer(page.read_text())}
    assert {Path(name).name for name in shown} == set(BENCHMARKS)


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_a_result_file_names_its_machine_and_how_to_measure_again(path: Path) -> None:
    result = json.loads(path.read_text())
    assert result["benchmark"] == path.stem
    assert machine_folder(result["machine"]) == path.parent.name
    for table in result["tables"].values():
        part = table["command"].removeprefix("make bench NAME=").split()[0].partition(".")
        assert part[0] == path.stem
        assert part[2] in ("", *BENCHMARKS[path.stem])
        assert table["measured"]


def test_a_report_keeps_the_tables_of_other_parts(tmp_path: Path) -> None:
    for part, value in (("a", 1), ("b", 2), ("a", 3)):
        report = Report("data", f"make bench NAME=data.{part}")
        report.table(part, {"rows": ",", "share": ".1%"}).add(1000 * value, value / 4)
        path = report.write(tmp_path)
    tables = json.loads(path.read_text())["tables"]
    assert [table["rows"] for table in tables.values()] == [[[3000, 0.75]], [[2000, 0.5]]]
    assert render(["rows", "share"], [",", ".1%"], [[3000, 0.75], [None, "–"]]) == [
        "| rows | share |",
        "| --: | --: |",
        "| 3,000 | 75.0% |",
        "| | – |",
    ]
