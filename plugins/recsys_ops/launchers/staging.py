"""A job's files in another storage, where the worker reads and writes; its results back from there."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from recsys_ops.models.files import FACTORS, ITEM_IDS, LOG, MANIFEST, NDCG, RESULT, SPEC, USER_IDS
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import load_manifest
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_AT_ONCE = 4
# what a job reads of the champion and of the reference
EARLIER = (USER_IDS, ITEM_IDS, FACTORS, MANIFEST)


def stage_job(store: Storage, work: Storage, spec: JobSpec) -> None:
    """Copy a job's inputs and the factors of champion and reference, then the spec, unless an earlier try has done so.

    Raises ModelError when there is no such version.
    """
    spec_path = paths.job(spec.day, SPEC)
    inputs = [paths.job(spec.day, name) for name in spec.inputs]
    for version in filter(None, (spec.champion, spec.reference)):
        load_manifest(store, version)
        inputs += [paths.model(version, name) for name in EARLIER]
    if {*inputs, spec_path} <= {*work.list("")} and work.get(spec_path) == store.get(spec_path):
        log.info("the job's files are in %s already", work.root)
        return
    _copy(store, work, inputs)
    _copy(store, work, [spec_path])


def fetch_results(work: Storage, store: Storage, spec: JobSpec) -> None:
    """Copy the model version, its manifest last, and the job's scores, result and log; what the job did not write is left out."""
    model = work.list(paths.model(spec.version, ""))
    manifest = [path for path in model if path == paths.model(spec.version, MANIFEST)]
    scores = paths.job(spec.day, NDCG)
    _copy(
        work,
        store,
        [
            *(path for path in model if path not in manifest),
            *([scores] if work.exists(scores) else []),
        ],
    )
    job = [paths.job(spec.day, name) for name in (RESULT, LOG)]
    _copy(work, store, [*manifest, *(path for path in job if work.exists(path))])


def clear_staged(work: Storage) -> None:
    """Remove everything that was staged for a job."""
    for path in work.list(""):
        work.delete(path)


def _copy(source: Storage, target: Storage, paths: list[str]) -> None:
    """Memory: the objects that are under way, at most `_AT_ONCE`, each whole."""

    def copy(path: str) -> int:
        data = source.get(path)
        target.put(path, data)
        return len(data)

    started = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        size = sum(pool.map(copy, paths)) / 1e6
    seconds = time.monotonic() - started
    log.info(
        "copied objects=%d mb=%.1f seconds=%.1f from %s to %s",
        len(paths),
        size,
        seconds,
        source.root,
        target.root,
    )
