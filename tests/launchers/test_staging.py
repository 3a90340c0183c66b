"""A job that is staged in another storage."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from support.azurite.server import ACCOUNT, Azurite
from support.gcs_server import gcs
from support.jobs import DAY, history
from support.train_task import Train
from support.vertex_server import IMAGE, PROJECT, REGION, vertex

from recsys_ops.errors import ModelError
from recsys_ops.models.version import load_manifest, verify_version
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main


@pytest.fixture
def staging(
    azurite_server: Azurite, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    """The storage on Azure in which `train` stages its job; all else is in a folder."""
    url = f"{azurite_server.container()}/staged"
    connection = (
        f'{{"conn_type": "wasb", "login": "{ACCOUNT}", "password": "{azurite_server.key}"}}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_BLOB", connection)
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("RECSYS_WORKER__STAGING_URL", url)
    return Storage(url, azurite_server.options)


@pytest.mark.azurite
def test_a_staged_job_leaves_only_its_fetched_model(
    storage: Storage, staging: Storage, make_job, train: Train, caplog
) -> None:
    earlier = []
    for day in (DAY - timedelta(days=40), DAY - timedelta(days=1)):
        earlier.append(make_job(history(last=day), day=day, iterations=2).version)
        assert main(storage.url(paths.job(day, "spec.json"))) == 0
    reference, champion = earlier
    spec = make_job(iterations=2, champion=champion, reference=reference)

    figures = train()
    assert figures["version"] == spec.version
    assert verify_version(storage, spec.version).spec.champion == champion
    assert storage.read_json(paths.job(DAY, "result.json"))["status"] == "succeeded"
    assert b"phase=refit" in storage.get(paths.job(DAY, "worker.log"))
    assert staging.list("") == []
    copied = [
        float(mb) for mb in re.findall(r"copied objects=\d+ mb=([\d.]+) seconds=", caplog.text)
    ]
    assert sum(copied) > 0.3

    undisturbed = load_manifest(storage, spec.version)
    for name in undisturbed.files:
        storage.delete(paths.model(spec.version, name))
    storage.delete(paths.model(spec.version, "manifest.json"))
    assert main(storage.url(paths.job(DAY, "spec.json"))) == 0
    assert load_manifest(storage, spec.version).files == undisturbed.files


@pytest.mark.azurite
def test_the_result_and_log_of_a_failed_job_are_fetched(
    storage: Storage, staging: Storage, make_job, train: Train
) -> None:
    spec = make_job(iterations=2)
    storage.put(paths.job(DAY, "train.npz"), b"rubbish")
    with pytest.raises(
        ModelError, match=r"the worker failed: .*train\.npz.*run build_matrix again"
    ):
        train()
    assert b"run build_matrix again" in storage.get(paths.job(DAY, "worker.log"))
    assert storage.list(paths.model(spec.version, "")) == []
    # the corrected job is staged again
    make_job(iterations=2)
    train()
    verify_version(storage, spec.version)


def test_a_job_on_vertex_ai_is_staged_on_google_cloud_and_has_a_page(
    storage: Storage, make_job, train: Train, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    spec = make_job(iterations=2)
    with vertex() as server, gcs() as bucket:
        # in place of the machine's own identity
        server.environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": bucket.key()}
        key = {**json.loads(bucket.key()), "token_uri": f"{server.url}/token"}
        monkeypatch.setenv(
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT",
            json.dumps({"conn_type": "google_cloud_platform", "extra": {"keyfile_dict": key}}),
        )
        described = {
            "project": PROJECT,
            "region": REGION,
            "image": IMAGE,
            "service_account": "job@x",
            "endpoint": server.url,
        }
        monkeypatch.setenv("RECSYS_WORKER__LAUNCHER", "vertex")
        monkeypatch.setenv("RECSYS_WORKER__VERTEX", json.dumps(described))
        monkeypatch.setenv("RECSYS_WORKER__STAGING_URL", bucket.storage().root)
        assert train()["version"] == spec.version
        assert bucket.objects == {}
    verify_version(storage, spec.version)
    assert "phase=refit" in caplog.text
    assert re.search(
        r"the job's page: https://console\.cloud\.google\.com/vertex-ai/\S+project=shop-prod",
        caplog.text,
    )
    assert key["private_key"][40:80] not in caplog.text
