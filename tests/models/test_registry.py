"""The model versions in storage: how they are described, and which ones expire."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from support.deployments import block, went_live
from support.jobs import DAY, history

from recsys_ops import cli
from recsys_ops.errors import ModelError
from recsys_ops.models.deployments import (
    pin_version,
    read_deployment_state,
    reference_deployment,
)
from recsys_ops.models.registry import (
    compare_versions,
    describe_version,
    existing_versions,
    expire_versions,
    list_overlap,
    list_versions,
    load_manifest,
    read_frame,
    rollback_targets,
    version_day,
)
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.verdict import write_verdict
from recsys_ops.models.version import evaluation_figures
from recsys_ops.settings import ModelsSettings, load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main

NOW = date(2026, 6, 30)
EVER = datetime.max.replace(tzinfo=UTC)
LIMITS = ModelsSettings(keep_newest=2, keep_days=90)


def put(
    storage: Storage,
    ago: int,
    number: int = 0,
    names: tuple[str, ...] = ("manifest.json", "verdict.json"),
) -> str:
    """Write the files of a version, without useful content; returns its name.

    ago : its day is this many days before `NOW`
    """
    version = f"{NOW - timedelta(days=ago):%Y%m%d}-{number:010x}"
    for name in (*names, "factors.npz", "metrics.json"):
        storage.put(paths.model(version, name), b"{}")
    return version


def deploy(storage: Storage, version: str) -> None:
    went_live(storage, version, version_day(version), "blessed")


def test_versions_expire_if_old_and_not_among_the_newest_except_verdicts(
    storage: Storage,
) -> None:
    newest, second, expired = put(storage, 91), put(storage, 94), put(storage, 95)
    unfinished, young = put(storage, 92, names=()), put(storage, 90, names=())
    assert list(existing_versions(storage)) == [young, newest, unfinished, second, expired]
    assert expire_versions(storage, NOW - timedelta(days=10), EVER, LIMITS) == (0, [])
    assert expire_versions(storage, NOW, min(storage.write_times("models").values()), LIMITS) == (
        0,
        [],
    )
    assert expire_versions(storage, NOW, EVER, LIMITS) == (2, [])
    assert list(existing_versions(storage)) == [young, newest, second]
    explained = [
        paths.model(expired, "metrics.json"),
        paths.model(expired, "verdict.json"),
        paths.model(unfinished, "metrics.json"),
    ]
    assert {path for path in storage.list("models") if expired in path or unfinished in path} == {
        *explained
    }
    assert expire_versions(storage, NOW, EVER, LIMITS) == (0, [])
    assert describe_version(storage, expired)["state"] == "expired"


def test_versions_in_use_never_expire(storage: Storage) -> None:
    oldest, old, previous, live = (put(storage, ago) for ago in (200, 150, 140, 130))
    for version in (oldest, old, previous, live):
        deploy(storage, version)
    block(storage, [oldest, previous], "rolled back")
    pinned, champion, reference, learned = (put(storage, ago) for ago in (190, 189, 188, 187))
    pin_version(storage, pinned)
    second, newest = put(storage, 2), put(storage, 1)
    for day, version, names in (
        (NOW, "20260630-ffffffffff", {"champion": champion, "reference": reference}),
        (NOW - timedelta(days=2), second, {"champion": learned, "reference": None}),
    ):
        storage.write_json(paths.job(day, "spec.json"), {"version": version, **names})
        storage.put(paths.job(day, "train.npz"), b"1")
    assert expire_versions(storage, NOW, EVER, LIMITS) == (3, [])
    kept = {newest, second, live, previous, pinned, champion, reference}
    assert set(existing_versions(storage)) == kept

    deploy(storage, second)
    deploy(storage, newest)
    assert reference_deployment(storage, NOW)["version"] == live
    assert expire_versions(storage, NOW, EVER, LIMITS) == (1, [])
    assert set(existing_versions(storage)) == kept - {previous}


def test_with_a_short_age_the_references_of_later_days_stay(storage: Storage) -> None:
    old, reference, coming, _, live = (put(storage, ago) for ago in (50, 40, 20, 19, 0))
    for version in (old, reference, coming, live):
        deploy(storage, version)
    assert expire_versions(storage, NOW, EVER, ModelsSettings(keep_newest=1, keep_days=5)) == (
        2,
        [],
    )
    assert set(existing_versions(storage)) == {reference, coming, live}


def test_after_a_killed_deletion_the_next_run_deletes_the_rest(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, 1), put(storage, 2)
    old = put(storage, 100)
    delete, deleted = storage.delete, []

    def killed(path: str) -> None:
        if deleted:
            raise KeyboardInterrupt
        deleted.append(path)
        delete(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            expire_versions(storage, NOW, EVER, LIMITS)
    assert deleted == [paths.model(old, "manifest.json")]
    assert describe_version(storage, old)["state"] == "unfinished"
    assert expire_versions(storage, NOW, EVER, LIMITS) == (1, [])
    assert old not in existing_versions(storage)


def test_overlap_is_the_share_of_the_longer_list_by_user() -> None:
    one = pl.DataFrame({"user_id": ["ann", "bob", "cleo"], "items": [["a", "b"], ["a"], ["x"]]})
    other = pl.DataFrame(
        {"user_id": ["bob", "ann", "dave"], "items": [["b", "c", "a", "d"], ["b", "a"], ["x"]]}
    )
    assert list_overlap(one, other).sort().to_list() == [0.25, 1.0]
    assert len(list_overlap(one, other.clear())) == 0


@pytest.fixture
def two(storage: Storage, make_job: Callable[..., JobSpec]) -> tuple[str, str]:
    """The live version, which is blessed, and the version that was live before it."""
    versions, champion = [], None
    for ago, factors in ((1, 8), (0, 16)):
        day = DAY - timedelta(days=ago)
        spec = make_job(history(last=day), day, champion, iterations=2, factors=factors)
        assert main(storage.url(paths.job(day, "spec.json"))) == 0
        storage.write_json(
            paths.model(spec.version, "metrics.json"), evaluation_figures(storage, spec)
        )
        rule = {
            "name": "champion",
            "value": 0.01,
            "threshold": -0.05,
            "passed": True,
            "sentence": "NDCG@20 +1.0 %",
        }
        verdict = {
            "blessed": True,
            "summary": "blessed: NDCG@20 +1.0 %",
            "rules": [rule],
            "forced": None,
        }
        write_verdict(storage, spec.version, verdict)
        went_live(storage, spec.version, day, "blessed: NDCG@20 +1.0 %")
        versions.append(champion := spec.version)
    return versions[0], versions[1]


@pytest.fixture
def models(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run ``recsys_ops models …``; returns its output, or its error."""
    monkeypatch.setattr(cli.models, "configured_storage", lambda: storage)
    monkeypatch.setenv("COLUMNS", "200")
    load_settings.cache_clear()

    def call(*words: str) -> str:
        code = cli.main(["models", *words])
        out, err = capsys.readouterr()
        assert (code == 0) == (err == "")
        return out or err

    return call


def test_list_show_and_diff_print_versions_and_their_differences(
    storage: Storage, two: tuple[str, str], models: Callable[..., str]
) -> None:
    old, new = two
    storage.put(paths.model("20260311-ffffffffff", "factors.npz"), b"half")
    models("pin", old)
    lines = models("list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["20260311-ffffffffff", new, old]
    assert ["blessed" in line for line in lines[1:]] == [False, True, True]
    assert "unfinished" in lines[1]
    assert lines[2].endswith("live")
    assert lines[3].endswith("previous, pinned")
    rows = json.loads(models("list", "--json", "--last", "2"))[1:]
    metrics = storage.read_json(paths.model(new, "metrics.json"))
    assert [(row["version"], row["started_from"], row["is"]) for row in rows] == [
        (new, None, ["live"])
    ]
    assert (rows[0]["ndcg"], rows[0]["champion_ndcg"]) == (
        metrics["challenger"]["ndcg@20"],
        metrics["champion"]["ndcg@20"],
    )
    assert rows[0]["bytes"] > 1000

    shown = models("show", new)
    assert shown.startswith(
        f"{new}: finished, live\nlearned from 2026-02-09 … 2026-03-10, history version 7: "
        "400 users, 160 items"
    )
    assert f"champion {old}, started from nothing" in shown
    assert "NDCG@20 +1.0 %" in shown
    assert "deployed by a nightly run: blessed" in shown
    header = next(line for line in shown.splitlines() if line.startswith("metric"))
    assert header.split() == ["metric", "challenger", "champion", "popularity"]
    assert json.loads(models("show", new, "--json"))["manifest"]["spec"]["champion"] == old

    diff = models("diff", old, new)
    differences = {line.split()[0]: line.split()[1:] for line in diff.splitlines()[1:] if line}
    assert differences["training.factors"] == ["8", "16"]
    assert differences["day"] == ["2026-03-09", "2026-03-10"]
    assert "training.regularization" not in differences
    assert "ndcg@20" in differences
    lists = [
        read_frame(storage, load_manifest(storage, version), "recommendations") for version in two
    ]
    new_lists = dict(lists[1].select("user_id", "items").iter_rows())
    shares = [
        len({*items} & {*new_lists[user]}) / max(len(items), len(new_lists[user]))
        for user, items in lists[0].select("user_id", "items").iter_rows()
        if user in new_lists
    ]
    assert diff.splitlines()[-1].startswith(
        f"{len(shares):,} users have a list in both; they share {sum(shares) / len(shares):.1%}"
    )


def test_the_message_for_a_wrong_version_names_the_versions(
    storage: Storage, two: tuple[str, str], models: Callable[..., str]
) -> None:
    old, new = two
    for words in (("show", "v9"), ("diff", old, "v9"), ("pin", "v9")):
        assert (
            models(*words) == f"ModelError: there is no model version v9; there are {new}, {old}\n"
        )
    assert models("unpin", old) == f"ModelError: {old} is not pinned; pinned are none\n"
    block(storage, [new], f"rolled back to {old}: robots")
    assert models("release", old) == f"ModelError: {old} is not blocked; blocked are {new}\n"
    assert f"blocked: rolled back to {old}: robots" in models("show", new)
    assert models("release", new).startswith(f"{new} may go live again")
    assert read_deployment_state(storage)["blocked"] == {}
    models("pin", old)
    assert read_deployment_state(storage)["pinned"] == [old]
    models("unpin", old)
    assert read_deployment_state(storage)["pinned"] == []


def test_rollback_targets_are_finished_and_blessed_or_forced(
    storage: Storage, two: tuple[str, str]
) -> None:
    old, new = two
    assert rollback_targets(storage) == [old]
    went_live(storage, old, DAY - timedelta(days=1), "rolled back")
    verdict = storage.read_json(paths.model(new, "verdict.json"))
    for blessed, forced, offered in (
        (False, None, []),
        (False, {"by": "ann", "reason": "sale"}, [new]),
        (True, None, [new]),
    ):
        write_verdict(storage, new, verdict | {"blessed": blessed, "forced": forced})
        assert rollback_targets(storage) == offered
    storage.delete(paths.model(new, "manifest.json"))
    assert rollback_targets(storage) == []


def test_only_finished_versions_are_compared(storage: Storage, two: tuple[str, str]) -> None:
    storage.delete(paths.model(two[0], "manifest.json"))
    with pytest.raises(ModelError, match="no finished model version"):
        compare_versions(storage, *two)


def test_foreign_and_damaged_files_keep_nothing_from_expiring(storage: Storage) -> None:
    for ago in (40, 39, 1):
        put(storage, ago)
    for path in ("models/foo.txt", "models/.DS_Store", "models/20260230-0123456789/factors.npz"):
        storage.put(path, b"x")
    storage.put("jobs/README.txt", b"x")
    storage.put("jobs/old/spec.json", b"x")
    for day, content in ((DAY, b"{}"), (DAY - timedelta(days=1), b"[]"), (NOW, b"no JSON")):
        storage.put(paths.job(day, "spec.json"), content)

    expired, problems = expire_versions(
        storage, NOW, EVER, ModelsSettings(keep_newest=1, keep_days=5)
    )

    assert expired == 2
    assert [re.search(r"day=[\d-]+", problem)[0] for problem in problems] == sorted(
        f"day={day}" for day in (DAY, DAY - timedelta(days=1), NOW)
    )
    assert storage.exists("models/20260230-0123456789/factors.npz")


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON"])
def test_a_version_with_a_damaged_verdict_is_listed_but_not_offered(
    storage: Storage, content: str
) -> None:
    good, bad = (put(storage, ago) for ago in (2, 1))
    for version in (good, bad):
        write_verdict(storage, version, {"blessed": True, "summary": "blessed", "forced": None})
    for name in ("verdict.json", "metrics.json"):
        storage.put(paths.model(bad, name), content.encode())
    assert rollback_targets(storage) == [good]
    assert [row["version"] for row in list_versions(storage, 5, NOW)] == [bad, good]
    assert describe_version(storage, bad)["verdict"] is None
