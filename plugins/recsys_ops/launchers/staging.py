"""Staging: copy a job's files to the storage that the worker uses, and the results back."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from recsys_ops.models.files import (
    FACTORS,
    ITEM_TABLE,
    LOG,
    MANIFEST,
    NDCG,
    RESULT,
    SPEC,
    USER_TABLE,
)
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import load_manifest
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_PARALLEL_COPIES = 4
# what a job reads of the champion and of the reference
_EARLIER_FILES = (USER_TABLE, ITEM_TABLE, FACTORS, MANIFEST)


def stage_job(storage: Storage, work: Storage, spec: JobSpec) -> None:
    """Copy a job's inputs, its champion and its reference, then its spec, from `storage` to `work`.

    Nothing is copied if an earlier try has copied everything. Raises ModelError if the champion or
    the reference is not a finished version.
    """
    spec_path = paths.job(spec.day, SPEC)
    inputs = [paths.job(spec.day, name) for name in spec.inputs]
    for version in filter(None, (spec.champion, spec.reference)):
        load_manifest(storage, version)
        inputs += [paths.model(version, name) for name in _EARLIER_FILES]
    if {*inputs, spec_path} <= {*work.list("")} and work.get(spec_path) == storage.get(spec_path):
        log.info("the job's files are in %s already", work.root)
        return
    _copy(storage, work, inputs)
    _copy(storage, work, [spec_path])


def fetch_results(work: Storage, storage: Storage, spec: JobSpec) -> None:
    """Copy what the job has written from `work` to `storage`.

    These are the model version, its manifest last, and the job's scores, result and log. What the
    job did not write is left out.
    """
    manifest_path, ndcg_path = paths.model(spec.version, MANIFEST), paths.job(spec.day, NDCG)
    version = work.list(paths.model(spec.version, ""))
    files = [path for path in version if path != manifest_path]
    _copy(work, storage, files + _existing(work, [ndcg_path]))
    job = [paths.job(spec.day, name) for name in (RESULT, LOG)]
    _copy(work, storage, _existing(work, [manifest_path, *job]))


def clear_staged(work: Storage) -> None:
    """Delete everything that was staged for a job."""
    for path in work.list(""):
        work.delete(path)


def _existing(storage: Storage, wanted: list[str]) -> list[str]:
    return [path for path in wanted if storage.exists(path)]


def _copy(source: Storage, target: Storage, copied: list[str]) -> None:
    """Copy objects. At most `_PARALLEL_COPIES` of them are in memory, each as a whole."""

    def copy(path: str) -> int:
        data = source.get(path)
        target.put(path, data)
        return len(data)

    started = time.monotonic()
    with ThreadPoolExecutor(_PARALLEL_COPIES) as pool:
        megabytes = sum(pool.map(copy, copied)) / 1e6
    log.info(
        "copied objects=%d mb=%.1f seconds=%.1f from %s to %s",
        len(copied),
        megabytes,
        time.monotonic() - started,
        source.root,
        target.root,
    )
