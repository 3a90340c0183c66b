"""The cleaning of a day, from the raw object to the rows for the history."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.delivery import DAY, GOOD, SETTINGS, deliver

from recsys_ops.errors import ContractError, DataError, StorageError
from recsys_ops.ingest.clean_day import kept_rows, run_step
from recsys_ops.ingest.deliveries import write_delivery
from recsys_ops.ingest.quarantine import quarantine_summary
from recsys_ops.ingest.steps import LAST_STEP, STEPS
from recsys_ops.settings import CleaningSettings, include_dir
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage

# delivered rows, with the step and the reason of their rejection
DELIVERY: list[tuple[dict[str, Any], str, str]] = [
    ({}, "kept", ""),
    ({"customer_ref": "u2"}, "align_schema", "alias_conflict"),
    ({"quantity": "1_000"}, "fix_types", "not_an_integer"),
    ({"event_id": "e0", "quantity": "2"}, "deduplicate", "superseded"),
    (
        {
            "event_id": "e0",
            "quantity": "1",
            "recorded_at": GOOD["recorded_at"] + timedelta(minutes=1),
        },
        "kept",
        "",
    ),
    ({"user_agent": "Googlebot/2.1"}, "filter_crawlers", "crawler"),
    ({"email": "boss@shop.example"}, "filter_staff", "staff_email"),
    ({"product_id": "p2", "event_id": "e0"}, "kept", ""),
]


def clean(
    storage: Storage, *names: str, settings: CleaningSettings = SETTINGS
) -> dict[str, dict[str, Any]]:
    return {name: run_step(storage, name, DAY, settings) for name in names or STEPS}


def test_every_row_is_kept_or_quarantined_with_its_reason(
    storage: Storage,
) -> None:
    delivery = [({"event_id": "e0"}, "deduplicate", "duplicate"), *DELIVERY[1:]]
    deliver(storage, [row for row, _, _ in delivery])
    figures = clean(storage)
    kept, metadata = kept_rows(storage, LAST_STEP, DAY)
    ends = dict.fromkeys(kept.collect()["row_id"], ("kept", ""))
    for step in STEPS:
        rejected = storage.read_parquet(paths.quarantine(step, DAY)).select("row_id", "reason")
        ends |= {row_id: (step, reason) for row_id, reason in rejected.iter_rows()}
        assert figures[step]["rows_in"] == figures[step]["kept"] + figures[step]["rejected"]
    assert [ends[str(i)] for i in range(len(delivery))] == [
        (step, reason) for _, step, reason in delivery
    ]
    assert metadata["delivery"] == current_generation(storage, paths.RAW, DAY)
    assert {"crawler_user_agents", "is_bot"} <= set(metadata), (
        "the lists' versions travel with the rows"
    )


def test_a_day_cleaned_twice_leaves_the_same_bytes(storage: Storage) -> None:
    deliver(storage, [row for row, _, _ in DELIVERY])
    written = []
    for _ in range(2):
        clean(storage)
        written.append(
            {
                path: storage.get(path)
                for path in storage.list("cleaning") + storage.list("quarantine")
            }
        )
    assert written[0] == written[1]


def test_a_corrected_staff_list_is_applied_to_a_past_day(storage: Storage) -> None:
    deliver(storage, [row for row, _, _ in DELIVERY])
    clean(storage)
    corrected = CleaningSettings.model_validate(
        {"staff": {"user_ids": ["u1"]}, "max_rejected_share": 1}
    )
    assert clean(storage, "filter_staff", settings=corrected)["filter_staff"]["kept"] == 0
    assert kept_rows(storage, LAST_STEP, DAY)[0].collect().is_empty()


def test_rows_written_again_are_not_mixed_with_earlier_rejections(storage: Storage) -> None:
    deliver(storage, [{}, {"user_agent": "Googlebot/2.1"}])
    clean(storage)
    deliver(storage, [{"user_agent": "Googlebot/2.1"}, {}])
    clean(storage, "align_schema", "fix_types")
    with pytest.raises(
        StorageError,
        match="filter_staff of 2026-03-02 refers to rows that fix_types has replaced since",
    ):
        kept_rows(storage, LAST_STEP, DAY)


def test_two_runs_of_one_day_at_once_cannot_mix_their_rows(
    storage: Storage,
) -> None:
    deliver(storage, [{}, {}, {"user_agent": "Googlebot/2.1"}])
    clean(storage)
    earlier = {
        path: storage.get(path)
        for path in (paths.step("filter_crawlers", DAY), paths.step("filter_bots", DAY))
    }
    deliver(storage, [{"user_agent": "Googlebot/2.1"}, {}, {}])
    clean(storage, "align_schema", "fix_types", "deduplicate")
    for path, data in earlier.items():
        storage.put(path, data)
    with pytest.raises(
        StorageError, match="filter_bots of 2026-03-02 refers to rows that fix_types has"
    ):
        clean(storage, "filter_staff")


def test_a_contract_changed_between_two_steps_is_not_half_applied(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(storage, [{"named": "n1"}, {"product_id": None, "named": "n2"}])
    clean(storage, "align_schema")
    text = (include_dir() / "contract.yaml").read_text()
    (tmp_path / "contract.yaml").write_text(
        text.replace("version: 1\n", "version: 2\n").replace("[product_id,", "[named,")
    )
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    with pytest.raises(
        StorageError,
        match="contract has changed since align_schema cleaned 2026-03-02: run the steps after ext",
    ):
        clean(storage, "fix_types")
    clean(storage)
    kept, metadata = kept_rows(storage, LAST_STEP, DAY)
    assert kept.collect()["item_id"].to_list() == ["n1", "n2"]
    assert metadata["contract_version"] == "2"


def test_a_new_delivery_is_not_read_with_rejections_of_the_old_one(
    storage: Storage,
) -> None:
    deliver(storage, [{}, {"customer_ref": "u2"}])
    clean(storage, "align_schema")
    deliver(storage, [{"customer_ref": "u2"}, {}])
    with pytest.raises(
        StorageError,
        match=r"align_schema of 2026-03-02 refers to rows .* steps after extract_delta again",
    ):
        clean(storage, "fix_types")


def test_a_failed_step_leaves_nothing_of_an_earlier_run_in_quarantine(
    storage: Storage,
) -> None:
    deliver(storage, [{}, {}, {"user_agent": "Googlebot/2.1"}])
    clean(storage)
    deliver(storage, [{"quantity": "x"}])
    clean(storage, "align_schema")
    with pytest.raises(DataError):
        clean(storage, "fix_types")
    assert quarantine_summary(storage, DAY)["reason"].to_list() == ["not_an_integer"]


def test_a_delivery_with_a_reserved_name_is_refused(storage: Storage) -> None:
    deliver(storage, [{"row": 7, "delivered_row": 8}])
    with pytest.raises(
        ContractError, match="delivered_row, a name of our own: give it another in include/sql"
    ):
        clean(storage, "align_schema")


@pytest.mark.parametrize(
    "value", ["+49 171 234567", "203.0.113.7", "Anna Muster", "anna@private.example"]
)
def test_a_message_about_mixed_up_columns_shows_no_personal_data(
    storage: Storage, value: str
) -> None:
    deliver(storage, [{"quantity": value}])
    clean(storage, "align_schema")
    with pytest.raises(DataError, match=r"not_an_integer 1, such as row_id 0, quantity\. The rows"):
        clean(storage, "fix_types")


def test_too_many_rejections_stop_the_day_and_say_why_without_names(
    storage: Storage,
) -> None:
    deliver(
        storage,
        [
            {},
            {"quantity": "1_000"},
            {"quantity": "x"},
            {"user_id": "null", "email": "eve@private.example"},
        ],
    )
    clean(storage, "align_schema")
    with pytest.raises(DataError) as caught:
        clean(storage, "fix_types")
    message = str(caught.value)
    assert message.startswith(
        "fix_types 2026-03-02: 3 of 4 rows rejected, more than cleaning.max_rejected_share = 0.5. "
    )
    assert (
        "not_an_integer 2, such as row_id 1, quantity = '1_000'; "
        "nobody 1, such as row_id 3, user_id. The rows: " in message
    )
    assert "eve" not in message
    assert storage.read_parquet(paths.quarantine("fix_types", DAY)).height == 3
    with pytest.raises(StorageError, match="is not there"):
        kept_rows(storage, "fix_types", DAY)


def test_ignored_events_are_counted_and_are_no_rejections(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (include_dir() / "contract.yaml").read_text()
    (tmp_path / "contract.yaml").write_text(text + "  ignore: [scroll, session_start]\n")
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    scrolls = [{"action": "scroll", "product_id": None}] * 7
    deliver(storage, [{}, {}, {"quantity": "x"}, *scrolls, {"action": "Session_Start"}])
    figures = clean(storage)["fix_types"]
    assert figures["ignored"] == {"scroll": 7, "session_start": 1}
    assert (figures["rows_in"], figures["kept"], figures["rejected"]) == (11, 2, 1)
    assert quarantine_summary(storage, DAY)["rows"].to_list() == [1]
    deliver(storage, [{}, {"quantity": "x"}, {"quantity": "y"}, *scrolls])
    clean(storage, "align_schema")
    with pytest.raises(DataError, match="2 of 3 rows rejected, more than"):
        clean(storage, "fix_types")


def test_new_missing_and_retyped_columns_are_reported(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(storage, [{"colour": "red", "quantity": 1}])
    assert clean(storage, "align_schema")["align_schema"]["drift"] is None
    deliver(storage, [{"size": "L"}], DAY - timedelta(days=1))
    drift = clean(storage, "align_schema")["align_schema"]["drift"]
    assert drift == {
        "new": ["colour"],
        "missing": ["size"],
        "retyped": {"quantity": "String → Int64"},
    }
    assert "the delivery of 2026-03-02 differs from the day before's" in caplog.text


def test_an_empty_day_passes_all_steps(storage: Storage) -> None:
    deliver(storage, [{}])
    delivered, _ = storage.scan_parquet(current_generation(storage, paths.RAW, DAY))
    write_delivery(storage, DAY, delivered.clear(), {DAY: 0}, "test")
    assert {name: figures["kept"] for name, figures in clean(storage).items()} == dict.fromkeys(
        STEPS, 0
    )
    assert kept_rows(storage, LAST_STEP, DAY)[0].collect().is_empty()
