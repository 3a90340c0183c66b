"""The gate and the tasks after it: only an unchanged, blessed version reaches Redis."""

import copy
import json
import re
from collections.abc import Callable
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from support.gate_metrics import metrics

from recsys_ops.errors import ModelError, NotBlessedError, StorageError
from recsys_ops.models.verdict import read_verdict
from recsys_ops.operators.gate import GateOperator
from recsys_ops.operators.refresh_redis import why_not_live
from recsys_ops.settings import Settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

DAY, VERSION = date(2026, 3, 10), "20260310-0123456789"


@pytest.fixture
def store(settings: Settings) -> Storage:
    """The storage of a version that was evaluated and is good enough."""
    store = Storage(settings.storage.root)
    store.write_json(paths.job(DAY, "spec.json"), {"version": VERSION})
    store.write_json(paths.model(VERSION, "manifest.json"), {"version": VERSION})
    store.write_json(paths.model(VERSION, "metrics.json"), metrics())
    return store


def evaluated(store: Storage, challenger: float) -> None:
    figures = copy.deepcopy(metrics())
    figures["challenger"]["ndcg@20"] = challenger
    store.write_json(paths.model(VERSION, "metrics.json"), figures)


def run(settings: Settings, **params: str) -> dict[str, Any]:
    run = SimpleNamespace(
        triggering_user_name="mara",
        run_id="manual__1",
        dag_id="recsys_retrain",
        task_id="gate",
        try_number=1,
    )
    context: Any = {"params": params, "dag_run": run, "task_instance": run}
    return GateOperator(task_id="gate").run(DAY, settings, context)


def test_a_blessed_version_may_go_live(settings: Settings, store: Storage) -> None:
    assert run(settings)["verdict"].startswith("blessed: NDCG@20 +0.0 % against champion")
    assert read_verdict(store, VERSION)["forced"] is None
    first = store.get(paths.model(VERSION, "verdict.json"))
    run(settings)
    assert store.get(paths.model(VERSION, "verdict.json")) == first


def test_a_refused_version_may_not_go_live_and_its_verdict_says_why(
    settings: Settings, store: Storage
) -> None:
    evaluated(store, 0.04)
    with pytest.raises(
        NotBlessedError,
        match=r"not blessed: NDCG@20 −20.0 % against champion .*What is live stays live",
    ):
        run(settings)
    with pytest.raises(NotBlessedError, match=r"NDCG@20 −20.0 %"):
        read_verdict(store, VERSION)
    assert store.read_json(paths.report("gate", DAY))["refused_by"] == ["champion", "reference"]


def test_a_refusal_can_skip_the_rest_of_the_run_and_still_sends_the_alert(
    settings: Settings, store: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated(store, 0.04)
    skipping = settings.model_copy(
        update={"gate": settings.gate.model_copy(update={"when_not_blessed": "skip"})}
    )
    with pytest.raises(AirflowSkipException, match=r"not blessed: NDCG@20 −20.0 %"):
        run(skipping)
    (line,) = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("ALERT")
    ]
    assert "not blessed" in json.loads(line.removeprefix("ALERT "))["error"]


def test_a_forced_version_carries_the_reason_and_the_user(
    settings: Settings, store: Storage
) -> None:
    evaluated(store, 0.04)
    assert run(settings, force_deploy="the old one lists recalled goods")["verdict"].endswith(
        "; forced by mara: the old one lists recalled goods"
    )
    verdict = read_verdict(store, VERSION)
    assert verdict["forced"] == {"reason": "the old one lists recalled goods", "by": "mara"}
    assert verdict["blessed"] is False


def test_a_version_without_lists_does_not_go_live_even_with_a_reason(
    settings: Settings, store: Storage
) -> None:
    figures = copy.deepcopy(metrics())
    figures["lists"]["counts"]["recommendations"] = 0
    store.write_json(paths.model(VERSION, "metrics.json"), figures)
    with pytest.raises(
        NotBlessedError,
        match=r"force_deploy cannot override: users with a list: 0, popular items: 20",
    ):
        run(settings, force_deploy="it is urgent")
    with pytest.raises(NotBlessedError):
        read_verdict(store, VERSION)


def test_what_needs_no_force_is_not_marked_as_forced(settings: Settings, store: Storage) -> None:
    run(settings, force_deploy="to be on the safe side")
    assert read_verdict(store, VERSION)["forced"] is None


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Storage], None]:
    def tamper(store: Storage) -> None:
        path = paths.model(VERSION, name)
        store.write_json(path, change(store.read_json(path)))

    return tamper


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (
            changed("verdict.json", lambda content: content | {"summary": "blessed: all of it"}),
            "verdict.json was changed since",
        ),
        (
            changed("verdict.json", lambda content: content | {"forced": {"by": "me"}}),
            "verdict.json was changed since",
        ),
        (
            changed("verdict.json", lambda content: content | {"version": "20260309-0123456789"}),
            "the verdict of another version",
        ),
        (changed("verdict.json", lambda content: []), "verdict.json was changed since"),
        (
            changed("metrics.json", lambda content: content | {"users": 813}),
            "metrics.json was changed since the gate checked it",
        ),
        (
            changed("manifest.json", lambda content: content | {"day": "2026-03-11"}),
            "manifest.json was changed since the gate checked it",
        ),
    ],
)
def test_a_changed_verdict_blesses_nothing(
    settings: Settings, store: Storage, tamper: Callable[[Storage], None], message: str
) -> None:
    run(settings)
    tamper(store)
    with pytest.raises(NotBlessedError, match=message):
        read_verdict(store, VERSION)


@pytest.mark.parametrize(
    "missing", ["jobs/day=2026-03-10/spec.json", "metrics.json", "manifest.json"]
)
def test_without_spec_metrics_or_manifest_nothing_is_blessed(
    settings: Settings, store: Storage, missing: str
) -> None:
    store.delete(missing if "/" in missing else paths.model(VERSION, missing))
    with pytest.raises((StorageError, ModelError), match="is not there"):
        run(settings)
    with pytest.raises(StorageError):
        read_verdict(store, VERSION)


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"users": NaN}', b"\xff"])
def test_metrics_that_cannot_be_read_bless_nothing(
    settings: Settings, store: Storage, broken: bytes
) -> None:
    store.put(paths.model(VERSION, "metrics.json"), broken)
    with pytest.raises((StorageError, NotBlessedError)):
        run(settings)
    with pytest.raises((StorageError, NotBlessedError)):
        read_verdict(store, VERSION)


LIVE: Any = {
    "deployments": [{"version": "20260311-aaaaaaaaaa", "day": "2026-03-11"}],
    "blocked": {"20260312-bbbbbbbbbb": "rolled back to 20260311-aaaaaaaaaa: bad"},
}


@pytest.mark.parametrize(
    ("run_id", "run_type", "version", "day", "reason", "held", "champion"),
    [
        ("scheduled__1", "scheduled", "20260312-cccccccccc", date(2026, 3, 12), None, None, None),
        ("scheduled__1", "scheduled", "20260311-cccccccccc", date(2026, 3, 11), None, None, None),
        (
            "__airflow_temporary_run_1",
            "manual",
            "20260312-cccccccccc",
            date(2026, 3, 12),
            "why not",
            "a tasks test",
            None,
        ),
        (
            "manual__1",
            "manual",
            "20260310-cccccccccc",
            date(2026, 3, 10),
            None,
            "has seen 2026-03-11 already",
            None,
        ),
        ("manual__1", "manual", "20260310-cccccccccc", date(2026, 3, 10), "by hand", None, None),
        (
            "backfill__1",
            "backfill",
            "20260312-cccccccccc",
            date(2026, 3, 12),
            None,
            "a backfill",
            None,
        ),
        (
            "scheduled__1",
            "scheduled",
            "20260312-bbbbbbbbbb",
            date(2026, 3, 12),
            None,
            "rolled back to .* models release",
            None,
        ),
        (
            "manual__1",
            "manual",
            "20260312-bbbbbbbbbb",
            date(2026, 3, 12),
            "by hand",
            "rolled back to .* models release",
            None,
        ),
        (
            "scheduled__1",
            "scheduled",
            "20260313-cccccccccc",
            date(2026, 3, 13),
            None,
            "rolled back to",
            "20260312-bbbbbbbbbb",
        ),
    ],
)
def test_a_blessed_version_goes_live_only_in_a_run_that_publishes(
    run_id: str,
    run_type: str,
    version: str,
    day: date,
    reason: str | None,
    held: str | None,
    champion: str | None,
) -> None:
    run: Any = SimpleNamespace(run_id=run_id, run_type=run_type)
    found = why_not_live(run, {"version": version, "champion": champion}, day, LIVE, reason)
    assert (found is None) == (held is None)
    assert re.search(held or "^None", str(found))
