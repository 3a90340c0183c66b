"""Checkpoints: the factors after a sweep, in storage, from which a killed job resumes."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from recsys_ops.als.factors import Factors
from recsys_ops.errors import StorageError
from recsys_ops.models import files
from recsys_ops.models.code_version import code_digest, package_versions
from recsys_ops.models.spec import JobSpec
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.storage.temporary_folder import temporary_folder

log = logging.getLogger(__name__)

PHASES = ("fit", "refit")
# On a CPU, pause after a checkpoint for nine times as long as it took: writing takes at most a
# tenth of the time. Without the pause, sweeps on few cores get slower by a third or more.
_CPU_PAUSE = 9


class Checkpoints:
    """The checkpoints of one job. An error with them is logged and does not end the job.

    One thread writes them while the sweeps go on, one checkpoint at a time. Each sweep gets one,
    except for sweeps that end while another checkpoint is written and, on a CPU, during the pause
    after it. Writing takes one more copy of the factors in memory and one on the local disk.

    device : as in `describe_device`; a checkpoint is used only on the same device

    resumed : by phase the number of sweeps that a checkpoint has saved
    """

    def __init__(self, storage: Storage, spec: JobSpec, device: Mapping[str, str]) -> None:
        self.resumed: dict[str, int] = {}
        self._storage, self._day = storage, spec.day
        self._origin = {
            "version": spec.version,
            "code": code_digest(),
            "packages": package_versions(),
            "device": dict(device),
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._pause = _CPU_PAUSE if device["kind"] == "cpu" else 0
        self._not_before = dict.fromkeys(PHASES, 0.0)  # by time.monotonic

    def read(self, phase: str) -> tuple[int, Factors] | None:
        """The number of sweeps done, and the factors after them.

        None if there is no checkpoint, or if it cannot be used: it is damaged, or of another job,
        release or device.
        """
        path = self._path(phase)
        try:
            if not self._storage.exists(path):
                return None
            arrays = serialization.to_arrays(self._storage.get(path))
            if str(arrays["origin"]) != self._origin_of(phase):
                log.warning("%s is of another job, release or device: not used", path)
                return None
            sweeps, factors = int(arrays["sweeps"]), Factors(arrays["user"], arrays["item"])
        except Exception as error:  # a damaged file raises errors of many types
            log.warning("%s cannot be used: %s: %s", path, type(error).__name__, error)
            return None
        self.resumed[phase] = sweeps
        log.info("phase %s resumes after sweep %d", phase, sweeps)
        return sweeps, factors

    def write(self, phase: str, sweeps: int, factors: Callable[[], Factors], *, last: bool) -> None:
        """Begin to write the factors after this number of sweeps, unless a checkpoint has to wait.

        factors : returns a copy of the factors; called only if they are written
        last : whether this is the last sweep of the phase, which is always written, if necessary
            after waiting for the checkpoint before it
        """
        if self._writing is not None:
            if not last and (
                not self._writing.done() or time.monotonic() < self._not_before[phase]
            ):
                return
            wait([self._writing])
        self._writing = self._thread.submit(self._write, phase, sweeps, factors())

    def delete(self) -> None:
        """Delete the checkpoints of a job that is finished."""
        self._thread.shutdown()
        try:
            for phase in PHASES:
                self._storage.delete(self._path(phase))
        except StorageError as error:
            log.warning("a checkpoint stays until the day's job expires: %s", error)

    def _write(self, phase: str, sweeps: int, factors: Factors) -> None:
        started = time.monotonic()
        try:
            with temporary_folder() as folder:
                file = folder / "checkpoint.npz"
                np.savez(
                    file,
                    allow_pickle=False,
                    user=factors.user,
                    item=factors.item,
                    sweeps=np.int64(sweeps),
                    origin=np.array(self._origin_of(phase)),
                )
                self._storage.put(self._path(phase), file)
        except Exception as error:  # such as a full disk or a storage that does not answer
            log.warning("no checkpoint after sweep %d of phase %s: %s", sweeps, phase, error)
        else:
            log.info(
                "checkpoint phase=%s sweep=%d seconds=%.2f",
                phase,
                sweeps,
                time.monotonic() - started,
            )
        now = time.monotonic()
        self._not_before[phase] = now + self._pause * (now - started)

    def _path(self, phase: str) -> str:
        return paths.job(self._day, files.checkpoint(phase))

    def _origin_of(self, phase: str) -> str:
        return json.dumps({**self._origin, "phase": phase}, sort_keys=True)
