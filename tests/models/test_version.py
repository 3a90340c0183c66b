"""Reading a model version: unfinished, damaged and foreign ones are refused."""

from collections.abc import Callable

import pytest
from support.jobs import DAY

from recsys_ops.errors import ModelError
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import load_manifest, read_factors, read_frame, verify_version
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker.job import main


@pytest.fixture
def version(storage: Storage, make_job: Callable[..., JobSpec]) -> str:
    spec = make_job(iterations=1)
    assert main(storage.url(paths.job(DAY, "spec.json"))) == 0
    return spec.version


@pytest.mark.parametrize(
    "name",
    [
        "factors.npz",
        "evaluation.npz",
        "users.parquet",
        "items.parquet",
        "recommendations.parquet",
        "popular.parquet",
    ],
)
def test_a_damaged_file_is_named(name: str, storage: Storage, version: str):
    data = bytearray(storage.get(paths.model(version, name)))
    data[-1] ^= 1
    storage.put(paths.model(version, name), bytes(data))
    with pytest.raises(ModelError, match=rf"{name} is damaged.*train version {version} again"):
        verify_version(storage, version)


def test_a_version_that_does_not_exist_or_is_not_finished_is_refused(storage: Storage):
    storage.put(paths.model("20260101-0000000000", "factors.npz"), b"half")
    with pytest.raises(ModelError, match="no finished model version 20260101-0000000000"):
        verify_version(storage, "20260101-0000000000")


@pytest.mark.parametrize("manifest", [b"", b"{}", b"not json"])
def test_a_damaged_manifest_is_refused(manifest: bytes, storage: Storage, version: str):
    storage.put(paths.model(version, "manifest.json"), manifest)
    with pytest.raises(ModelError, match=r"manifest\.json is damaged"):
        load_manifest(storage, version)


def test_the_manifest_of_another_version_is_refused(storage: Storage, version: str):
    storage.put(
        paths.model("20260101-0000000000", "manifest.json"),
        storage.get(paths.model(version, "manifest.json")),
    )
    with pytest.raises(ModelError, match=f"belongs to version {version}"):
        load_manifest(storage, "20260101-0000000000")


def test_factors_have_a_row_for_every_id(storage: Storage, version: str):
    manifest = load_manifest(storage, version)
    factors = read_factors(storage, manifest)
    assert (
        factors.user.shape
        == (manifest.users, 64)
        == (read_frame(storage, manifest, "users").height, 64)
    )
    assert (
        factors.item.shape
        == (manifest.items, 64)
        == (read_frame(storage, manifest, "items").height, 64)
    )
