"""The day of an object, from its path."""

from datetime import date

import pytest

from recsys_ops.storage import paths

DAY = date(2026, 3, 10)


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        (paths.report("gate", DAY), "reports", "gate.json"),
        (paths.trial(DAY, 1, "jobs/day=2026-01-01/spec.json"), "tuning", None),
        (paths.job(DAY, "spec.json"), "jobs", "spec.json"),
    ],
)
def test_the_parts_of_a_path_of_a_day(path: str, kind: str, name: str | None) -> None:
    parts = paths.parse(path)
    assert parts is not None
    assert (parts.kind, parts.day) == (kind, DAY)
    assert name in (None, parts.name)


@pytest.mark.parametrize(
    "path",
    [
        "raw/README.txt",
        "raw/.DS_Store",
        "raw/day=2026-02-30/000001.parquet",
        "raw/day=2026-3-1/000001.parquet",
        "raw/day=2026-03-10",
        "raw/day=2026-03-10/",
        "old/raw/day=2026-03-10/000001.parquet",
        "models/live.json",
        "",
    ],
)
def test_a_foreign_path_has_no_day(path: str) -> None:
    assert paths.parse(path) is None
