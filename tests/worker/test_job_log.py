"""The worker's log can be read in storage, while it runs and after it failed."""

import logging
import re
import time

import pytest
from support.jobs import DAY, MakeJob, history, result, start_worker

from recsys_ops.errors import StorageError
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker import job_log
from recsys_ops.worker.job_log import StoredLog

LOG = paths.job(DAY, "worker.log")


def test_a_worker_s_log_is_in_storage_as_on_its_standard_error(storage: Storage, make_job: MakeJob):
    spec = make_job(history(100, 40), iterations=2)
    storage.put(LOG, b"of an earlier run\n")
    worker = start_worker(storage)
    _, printed = worker.communicate()
    assert worker.returncode == 0
    stored = storage.get(LOG).decode()
    assert printed == stored
    assert all(re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) \S", line) for line in stored.splitlines())
    assert f"succeeded version={spec.version}" in stored.splitlines()[-1]


def test_the_log_of_a_failed_job_is_in_storage(storage: Storage, make_job: MakeJob):
    make_job(history(100, 40), iterations=2)
    storage.put(paths.job(DAY, "train.npz"), b"half")
    worker = start_worker(storage)
    worker.communicate()
    assert worker.returncode == 1
    assert (
        f"ERROR the job of {DAY} failed: {result(storage)['reason']}" in storage.get(LOG).decode()
    )


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    monkeypatch.setattr(job_log, "_WRITE_EVERY_S", 0.02)
    test_logger = logging.getLogger("recsys_ops.test")
    test_logger.setLevel("INFO")
    return test_logger


def until_stored(storage: Storage, text: str) -> str:
    for _ in range(500):
        if storage.exists(LOG) and text in storage.get(LOG).decode():
            return storage.get(LOG).decode()
        time.sleep(0.01)
    raise AssertionError(f"{text} is not in the log")


def test_the_log_grows_in_storage_while_the_job_runs(storage: Storage, logger: logging.Logger):
    storage.put(LOG, b"of an earlier run\n")
    with StoredLog(storage, LOG):
        logger.info("first")
        until_stored(storage, "INFO first\n")
        logger.info("second")
        stored = until_stored(storage, "INFO second\n")
    assert len(stored.splitlines()) == 2
    assert storage.get(LOG).decode() == stored


def test_one_warning_if_storage_refuses_the_log_which_is_written_later(
    storage: Storage,
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    tries = []

    def refuse(*_: object) -> None:
        tries.append(1)
        raise StorageError("cannot write: connection refused")

    with StoredLog(storage, LOG):
        until_stored(storage, "")
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "put", refuse)
            logger.info("lost")
            while len(tries) < 3:
                time.sleep(0.01)
        until_stored(storage, "INFO lost\n")
    assert caplog.text.count("the log is not in storage: cannot write: connection refused") == 1
