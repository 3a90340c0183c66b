"""Training on the worker: the job of the day, run by the worker command, its log in the task's log."""

import logging
import os
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException

import recsys_ops
from recsys_ops import paths
from recsys_ops.errors import ModelError, StorageError
from recsys_ops.operators.base import DayOperator, storage, storage_options
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class TrainOnWorkerOperator(DayOperator):
    """Run ``python -m recsys_ops.worker <spec url>`` for the day's job, here, and wait for it."""

    _process: subprocess.Popen[str] | None = None

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        store = storage(settings)
        spec_url = store.url(paths.job(day, "spec.json"))
        store.delete(paths.job(day, "result.json"))
        command = [sys.executable, "-m", "recsys_ops.worker", spec_url]
        self._process = subprocess.Popen(  # noqa: S603
            command, env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        timer = threading.Timer(settings.training.timeout_s, self._process.kill)
        timer.start()
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                log.info("%s", line.rstrip())
            exit_code = self._process.wait()
        finally:
            timer.cancel()
            self.on_kill()
        if exit_code < 0:
            raise AirflowException(
                f"the worker was ended by signal {-exit_code}: out of memory, or training.timeout_s = "
                f"{settings.training.timeout_s} s is too short"
            )
        if not store.exists(paths.job(day, "result.json")):
            raise ModelError(f"the worker ended with {exit_code} and left no result; its last lines above say why")
        result = store.read_json(paths.job(day, "result.json"))
        if exit_code != 0:
            raise (StorageError if result["outage"] else ModelError)(f"the worker failed: {result['reason']}")
        return {key: value for key, value in result.items() if key not in ("status", "reason", "outage")}

    def on_kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def environment(settings: Settings) -> dict[str, str]:
    """The worker's environment: where the package lies and the storage account, nothing else of Airflow's."""
    account = {f"AZURE_STORAGE_{key.upper()}": value for key, value in storage_options(settings).items()}
    wanted = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    kept = {key: value for key, value in os.environ.items() if key in wanted or key.startswith(("AZURE_", "AZURITE_"))}
    return {**kept, **account, "PYTHONPATH": str(Path(recsys_ops.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
