"""The factors in storage after the sweeps, so that a job that was killed goes on where it was."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from recsys_ops.als.factors import Factors
from recsys_ops.errors import StorageError
from recsys_ops.models import files
from recsys_ops.models.code import code_digest, package_versions
from recsys_ops.models.spec import JobSpec
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage
from recsys_ops.storage.temporary_folder import temporary_folder

log = logging.getLogger(__name__)

PHASES = ("fit", "refit")
_CPU_PAUSE = 9  # after a checkpoint, times as long as it took: on few cores the sweeps would else be slower by a third or more


class Checkpoints:
    """One job's checkpoints. No fault of theirs ends the job: it is logged.

    One thread writes them while the sweeps go on, one at a time: each sweep gets one, but for those that end while one is
    written. Where the CPU does the sweeps, it writes for at most a tenth of the time. That takes one more copy of the factors
    in memory and one on the local disk.

    resumed : by phase the number of sweeps that did not have to be done again
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
        """How many sweeps were done, and the factors after them. None where there is no checkpoint, or not this very job's."""
        path = self._path(phase)
        try:
            if not self._storage.exists(path):
                return None
            found = serialization.to_arrays(self._storage.get(path))
            if str(found["origin"]) != self._name(phase):
                log.warning("%s is of another job, release or device: not used", path)
                return None
            sweeps, factors = int(found["sweeps"]), Factors(found["user"], found["item"])
        except Exception as error:  # a damaged file raises one of many kinds
            log.warning("%s cannot be used: %s: %s", path, type(error).__name__, error)
            return None
        self.resumed[phase] = sweeps
        log.info("phase %s goes on after sweep %d", phase, sweeps)
        return sweeps, factors

    def write(self, phase: str, sweeps: int, sofar: Callable[[], Factors], *, last: bool) -> None:
        """Begin to write the factors after so many sweeps; the last ones of a phase always, even if that means to wait."""
        if self._writing is not None:
            if not last and (
                not self._writing.done() or time.monotonic() < self._not_before[phase]
            ):
                return
            wait([self._writing])
        self._writing = self._thread.submit(self._write, phase, sweeps, sofar())

    def delete(self) -> None:
        """The job is done, nothing goes on from here."""
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
                origin = np.array(self._name(phase))
                np.savez(
                    file,
                    allow_pickle=False,
                    user=factors.user,
                    item=factors.item,
                    sweeps=np.int64(sweeps),
                    origin=origin,
                )
                self._storage.put(self._path(phase), file)
        except Exception as error:  # the disk may be full, the storage away
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

    def _name(self, phase: str) -> str:
        return json.dumps({**self._origin, "phase": phase}, sort_keys=True)
