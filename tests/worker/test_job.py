"""The training job from spec to model version: quality, repeatability, what it writes."""

import os
import subprocess
import sys
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from support.jobs import (
    DAY,
    PLUGINS,
    MakeJob,
    contents,
    delete_models,
    history,
    result,
    spec_url,
    without_run,
)

from recsys_ops.evaluation.gate import decide
from recsys_ops.models import version as version_module
from recsys_ops.models.spec import read_inputs
from recsys_ops.models.version import (
    evaluation_figures,
    load_manifest,
    read_evaluation,
    read_frame,
    verify_version,
)
from recsys_ops.settings import BoughtTogetherSettings, GateSettings, ListsSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main

LISTS = ("recommendations", "similar", "bought_together", "popular", "categories", "trending")


def test_the_defaults_beat_popularity_on_planted_tastes(storage: Storage, make_job: MakeJob):
    spec = make_job()
    assert main(spec_url(storage)) == 0
    figures = evaluation_figures(storage, spec)
    assert result(storage)["metrics"] == {
        name: figures[name] for name in ("challenger", "popularity")
    }
    assert figures["challenger"]["ndcg@20"] > 1.3 * figures["popularity"]["ndcg@20"]
    assert decide(figures, GateSettings(allow_first_deployment=True)).blessed


def test_a_finished_job_leaves_a_complete_version_and_its_result(
    storage: Storage, make_job: MakeJob
):
    spec = make_job(iterations=2)
    assert main(spec_url(storage)) == 0
    manifest = verify_version(storage, spec.version)
    assert (manifest.day, manifest.history_version, manifest.spec) == (DAY, 7, spec)
    assert {path.rpartition("/")[2] for path in contents(storage, spec.version)} == {
        *manifest.files,
        "manifest.json",
    }
    outcome = result(storage)
    assert (outcome["status"], outcome["version"], outcome["reason"]) == (
        "succeeded",
        spec.version,
        None,
    )
    assert outcome["seconds"].keys() == {
        "read",
        "fit",
        "loss",
        "evaluate",
        "refit",
        "recommend",
        "write",
    }
    assert (outcome["device"]["kind"], outcome["device"]["solver"]) in {
        ("cpu", "cpu"),
        ("gpu", "gpu"),
    }
    assert outcome["peak_memory_bytes"] > 10_000_000
    assert outcome["cost"] is None


def test_recommendations_have_no_seen_items_and_none_not_for_sale(
    storage: Storage, make_job: MakeJob
):
    spec = make_job(iterations=2)
    main(spec_url(storage))
    lists = read_frame(storage, load_manifest(storage, spec.version), "recommendations")
    pairs = lists.explode("items").select("user_id", item_id="items")
    assert lists.height == 400
    assert lists["items"].list.len().max() == 10
    assert not pairs["item_id"].str.ends_with("5").any()
    assert pairs.join(history(), on=["user_id", "item_id"]).is_empty()
    popular = read_frame(storage, load_manifest(storage, spec.version), "popular")
    assert not popular["item_id"].str.ends_with("5").any()
    assert popular["score"].is_sorted(descending=True)


def test_no_list_has_items_not_for_sale_or_more_items_than_allowed(
    storage: Storage, make_job: MakeJob
):
    lists = ListsSettings(
        top_n=10,
        max_per_category=2,
        pinned_items=("item-21", "a-new-one"),
        bought_together=BoughtTogetherSettings(min_support=2),
    )
    spec = make_job(iterations=2, lists=lists)
    assert main(spec_url(storage)) == 0
    manifest = load_manifest(storage, spec.version)
    frames = {name: read_frame(storage, manifest, name) for name in LISTS}
    assert all(frame.height for frame in frames.values())
    for name, frame in frames.items():
        if "items" in frame.columns:
            assert frame["items"].list.len().max() <= 10, name
            assert not frame["items"].list.eval(pl.element().str.ends_with("5")).list.any().any(), (
                name
            )
            assert (frame["items"].list.n_unique() == frame["items"].list.len()).all(), name
        else:
            assert not frame["item_id"].str.ends_with("5").any(), name
            assert frame["item_id"].is_unique().all(), name
    for name in ("similar", "bought_together"):
        assert frames[name].filter(pl.col("items").list.contains(pl.col("item_id"))).is_empty()
        assert frames[name]["item_id"].str.ends_with("5").any()  # people still look at its page
        assert all(
            scores == sorted(scores, reverse=True) for scores in frames[name]["scores"].to_list()
        )
    assert frames["recommendations"]["items"].list.head(2).unique().to_list() == [
        ["item-21", "a-new-one"]
    ]
    assert frames["recommendations"]["items"].list.len().unique().to_list() == [10]
    ends = (
        frames["recommendations"]
        .explode("items")
        .select("user_id", end=pl.col("items").str.tail(1))
    )
    most = ends.filter(pl.col("end").is_in(["e", "9"]).not_()).group_by("user_id", "end").len()
    assert most["len"].max() == 2
    assert frames["popular"]["item_id"].head(2).to_list() == ["item-21", "a-new-one"]
    assert frames["categories"]["category"].to_list() == [
        digit for digit in "012346789" if digit != "9"
    ]


def test_an_input_of_another_shop_makes_another_version(make_job: MakeJob):
    lists = ListsSettings(top_n=10)
    others = [
        make_job(lists=lists.model_copy(update=change)).version
        for change in (
            {},
            {"pinned_items": ("item-1",)},
            {"max_per_category": 3},
            {"trending_days": 5},
        )
    ]
    assert len(set(others)) == 4


def test_only_the_served_model_learns_from_the_held_out_day(storage: Storage, make_job: MakeJob):
    late = pl.DataFrame(
        {
            "day": [DAY] * 2,
            "user_id": ["newcomer"] * 2,
            "item_id": ["item-0", "item-8"],
            "event_type": ["purchase"] * 2,
        }
    )
    spec = make_job(pl.concat([history(), late], how="diagonal"), iterations=3)
    main(spec_url(storage))
    manifest = load_manifest(storage, spec.version)
    users = read_frame(storage, manifest, "users")["user_id"]
    assert "newcomer" in read_frame(storage, manifest, "recommendations")["user_id"]
    assert "newcomer" not in users.gather(read_evaluation(storage, manifest).users)


def test_the_same_job_gives_the_same_bytes_except_for_measurements(
    storage: Storage, make_job: MakeJob
):
    spec = make_job(iterations=3)
    main(spec_url(storage))
    first = contents(storage, spec.version)
    delete_models(storage)
    assert make_job(iterations=3) == spec
    main(spec_url(storage))
    second = contents(storage, spec.version)
    assert first != second
    assert without_run(first) == without_run(second)


def test_a_finished_job_is_not_done_again(
    storage: Storage, make_job: MakeJob, caplog: pytest.LogCaptureFixture
):
    spec = make_job(iterations=2)
    main(spec_url(storage))
    first = contents(storage, spec.version)
    storage.delete(paths.job(DAY, "train.npz"))
    storage.delete(paths.job(DAY, "result.json"))
    caplog.set_level("INFO")
    caplog.clear()
    assert main(spec_url(storage)) == 0
    assert contents(storage, spec.version) == first
    assert (result(storage)["status"], result(storage)["version"]) == ("succeeded", spec.version)
    assert f"version {spec.version} is finished already" in caplog.text
    assert "phase=" not in caplog.text


@pytest.mark.parametrize(
    "change",
    ["a damaged file", "a missing file", "a damaged manifest", "other code", "another package"],
)
def test_a_damaged_version_or_one_of_another_release_is_made_again(
    change: str, storage: Storage, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
):
    spec = make_job(iterations=1)
    main(spec_url(storage))
    first = contents(storage, spec.version)
    match change:
        case "a damaged file":
            storage.put(paths.model(spec.version, "popular.parquet"), b"half")
        case "a missing file":
            storage.delete(paths.model(spec.version, "popular.parquet"))
        case "a damaged manifest":
            storage.put(paths.model(spec.version, "manifest.json"), b"{}")
        case "other code":
            monkeypatch.setattr(version_module, "code_digest", lambda: "0" * 64)
        case "another package":
            monkeypatch.setattr(version_module, "package_versions", lambda: {"numpy": "3.0"})
    assert main(spec_url(storage)) == 0
    again = contents(storage, spec.version)
    manifest = paths.model(spec.version, "manifest.json")
    assert again.pop(manifest) != first.pop(manifest)
    assert again == first


def test_a_machine_with_another_release_says_so(
    storage: Storage, make_job: MakeJob, caplog: pytest.LogCaptureFixture
):
    spec = make_job(iterations=1)
    storage.write_json(
        paths.job(DAY, "spec.json"),
        spec.model_copy(update={"code": "0" * 64}).model_dump(mode="json"),
    )
    assert main(spec_url(storage)) == 0
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "install the same release here and where Airflow runs" in warning.getMessage()


def test_the_champion_is_evaluated_on_the_same_day_by_id(storage: Storage, make_job: MakeJob):
    events = history()
    yesterday = DAY - timedelta(days=1)
    first = make_job(events, day=yesterday)
    assert main(storage.url(paths.job(yesterday, "spec.json"))) == 0
    newcomer = pl.DataFrame(
        {
            "day": [yesterday, DAY],
            "user_id": ["a-newcomer"] * 2,
            "item_id": ["item-0", "item-8"],
            "event_type": ["purchase"] * 2,
        }
    )
    second = make_job(
        pl.concat([events, newcomer]), champion=first.version, reference=first.version
    )
    assert main(spec_url(storage)) == 0
    figures = evaluation_figures(storage, second)
    assert figures["champion_version"] == first.version
    assert figures["reference"] == figures["champion"]
    assert figures["reference_version"] == first.version
    assert 0.5 < figures["parity"]["overlap"] < 1
    assert figures["ids_match"] is True
    assert figures["data"]["window_rows"] > figures["champion_data"]["window_rows"] > 0
    assert figures["champion"]["ndcg@20"] > 1.3 * figures["popularity"]["ndcg@20"]
    lists = read_evaluation(storage, load_manifest(storage, second.version))
    assert lists.champion is not None
    assert lists.users[0] == 0  # a-newcomer is the first id, and the champion does not know it
    assert lists.champion[0].tolist() == lists.popularity[0].tolist()
    assert decide(figures, GateSettings()).blessed


def test_a_day_without_purchases_trains_and_is_not_blessed(storage: Storage, make_job: MakeJob):
    spec = make_job(history().filter(pl.col("day") < DAY), iterations=1)
    assert main(spec_url(storage)) == 0
    verdict = decide(evaluation_figures(storage, spec), GateSettings(allow_first_deployment=True))
    assert "0 users evaluated" in verdict.summary


def test_the_version_changes_with_the_data_and_the_settings(make_job: MakeJob):
    versions = [make_job().version, make_job(seed=2).version, make_job(history(seed=2)).version]
    assert len(set(versions)) == 3
    assert all(version.startswith("20260310-") and len(version) == 19 for version in versions)


def test_the_inputs_come_back_as_they_were_written(storage: Storage, make_job: MakeJob):
    inputs = read_inputs(storage, make_job())
    data = inputs.interactions
    assert data.users.to_list() == sorted(f"user-{n}" for n in range(400))
    assert (data.train.dtype, data.full.dtype, data.holdout.dtype) == (np.float32, np.float32, bool)
    assert not inputs.eligible[data.items.str.ends_with("5").to_numpy()].any()
    shop = inputs.list_inputs
    assert shop.category.equals(data.items.str.tail(1).replace("9", None))
    assert (shop.baskets.items.dtype, shop.baskets.items.shape) == (
        bool,
        (len(shop.baskets.weights), len(data.items)),
    )
    assert shop.baskets.items.nnz == shop.baskets.items.sum() > 0
    assert shop.trending.schema == {"item_id": pl.String, "score": pl.Float32}


def test_the_worker_runs_without_airflow(storage: Storage, make_job: MakeJob):
    make_job(iterations=1)
    script = (
        "import sys; sys.modules['airflow'] = None; "
        "from recsys_ops.worker.job import main; sys.exit(main(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", script, spec_url(storage)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(PLUGINS)},
    )
