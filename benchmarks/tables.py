"""``make bench-tables``: writes the tables of the pages from the result files.

A page names a table of benchmarks/results between two comments::

    <!-- bench amd-epyc-2-cores/quality: metrics -->
    <!-- end bench -->

With the name of a result file only, the place gets all its tables.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, render

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)
PLACE = re.compile(
    r"<!-- bench (?P<file>[\w/-]+)(?:: (?P<table>.+?))? -->\n.*?<!-- end bench -->", re.DOTALL
)


def fill(page: str) -> str:
    """The page with all its tables as the result files have them.

    Raises KeyError or FileNotFoundError when a page names a table that does not exist.
    """
    return PLACE.sub(_filled, page)


def _filled(place: re.Match[str]) -> str:
    tables = json.loads((RESULTS / f"{place['file']}.json").read_text())["tables"]
    if place["table"]:
        lines = _lines(tables[place["table"]])
    else:
        lines = []
        for name, table in tables.items():
            lines += [f"**{name}**, measured on {table['measured']}", f"`{table['command']}`", ""]
            lines += [*_lines(table), ""]
    first = place[0].partition("\n")[0]
    text = "\n".join(lines).rstrip()
    return f"{first}\n\n{text}\n\n<!-- end bench -->"


def _lines(table: dict[str, Any]) -> list[str]:
    return render(table["columns"], table["formats"], table["rows"])


def main() -> None:
    for page in PAGES:
        text = page.read_text()
        if (filled := fill(text)) != text:
            page.write_text(filled)
            print(f"{page.relative_to(ROOT)}: tables written")


if __name__ == "__main__":
    main()
