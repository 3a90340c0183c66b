"""The shares of rejected rows that the day profile shows."""

from datetime import timedelta

import pytest
from support.delivery import DAY

from recsys_ops.errors import StorageError
from recsys_ops.ingest.quarantine import rejected_shares
from recsys_ops.ingest.steps import STEPS
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

REPORTS = {
    "align_schema": (200, 10),
    "fix_types": (190, 10),
    "deduplicate": (180, 10),
    "filter_crawlers": (170, 30),
    "filter_bots": (140, 10),
    "filter_staff": (130, 10),
}


def test_rejected_rows_are_counted_against_all_delivered_rows(storage: Storage) -> None:
    empty, failed = (DAY - timedelta(days=age) for age in (1, 2))
    for step, (rows, rejected) in REPORTS.items():
        storage.write_json(paths.report(step, DAY), {"rows_in": rows, "rejected": rejected})
        storage.write_json(paths.report(step, empty), {"rows_in": 0, "rejected": 0})
    storage.write_json(paths.report("align_schema", failed), {"rows_in": 9, "rejected": 1})
    assert set(REPORTS) == set(STEPS)
    assert rejected_shares(storage, [failed, empty, DAY]) == {
        DAY: {"quarantine_share": pytest.approx(0.1), "bot_share": pytest.approx(0.2)}
    }
    report = paths.report("fix_types", DAY)
    storage.write_json(report, storage.read_json(report) | {"ignored": {"scroll": 20, "tap": 5}})
    delivered = REPORTS["align_schema"][0]
    assert rejected_shares(storage, [DAY])[DAY]["ignored_share"] == pytest.approx(25 / delivered)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"no JSON"])
def test_a_damaged_report_is_left_out_unless_it_is_the_days_own(
    storage: Storage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = DAY - timedelta(days=1)
    for day in (before, DAY):
        for step, (rows, rejected) in REPORTS.items():
            storage.write_json(paths.report(step, day), {"rows_in": rows, "rejected": rejected})
    damaged = paths.report("fix_types", before)
    storage.put(damaged, content)
    assert list(rejected_shares(storage, [DAY, before])) == [DAY]
    assert damaged in caplog.text
    with pytest.raises(StorageError, match=r"fix_types\.json"):
        rejected_shares(storage, [before])
