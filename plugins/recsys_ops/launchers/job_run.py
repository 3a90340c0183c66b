"""One training job on a launcher: found or started, followed, cancelled, its result read."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from recsys_ops.errors import ModelError, RecsysError, StorageError, WorkerError
from recsys_ops.launchers.base import Job, Launcher
from recsys_ops.launchers.staging import clear_staged, fetch_results, stage_job
from recsys_ops.models.files import LOG, RESULT, SPEC
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import verify_version
from recsys_ops.storage import paths, serialization
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_LINE = re.compile(r"(\d\d:\d\d:\d\d) (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)", re.DOTALL)

# what identifies a started job to a later try of the same task: its name, launcher and id
Handle = dict[str, str]


def job_name(storage: Storage, spec: JobSpec) -> str:
    """The name of a job, the same for each try at the same model version.

    It contains a hash of the storage: two deployments may share a machine and, with the same data,
    have the same version.
    """
    return f"recsys-{spec.version}-{serialization.sha256(storage.root.encode())[:8]}"


class JobRun:
    """The life of one job, for a task that may be killed and run again.

    launcher : where the job runs
    storage : has the job spec, and gets the results
    work : where the worker reads and writes; `storage` itself if the job is not staged
    environment : for the worker, see `Job`
    """

    def __init__(
        self,
        launcher: Launcher,
        storage: Storage,
        work: Storage,
        spec: JobSpec,
        *,
        timeout_s: int,
        environment: Mapping[str, str],
    ) -> None:
        self._launcher, self._storage, self._work, self._spec = launcher, storage, work, spec
        self._job = Job(
            name=job_name(storage, spec),
            spec_url=work.url(paths.job(spec.day, SPEC)),
            timeout_s=timeout_s,
            environment=environment,
            read_log=self._read_log,
        )
        self._job_id: str | None = None
        self._cancelled = False

    def start(self) -> Handle:
        """Find the job that an earlier try has started, or start it.

        Raises WorkerError if `cancel` was called meanwhile.
        """
        job_id = self._launcher.find(self._job)
        if job_id is None:
            self._prepare()
            log.info("starting job %s on %s", self._job.name, self._launcher.place)
        else:
            log.info(
                "job %s runs already on %s: following it", self._job.name, self._launcher.place
            )
        if self._cancelled:
            raise WorkerError("the task was ended before its job was started")
        self._job_id = job_id or self._launcher.start(self._job)
        if self._cancelled:
            self.cancel()
            raise WorkerError("the task was ended while its job was started")
        return {
            "job": self._job.name,
            "launcher": type(self._launcher).__name__,
            "id": self._job_id,
        }

    def state(self, handle: Handle) -> str:
        """The state of a job that an earlier try has started.

        It is `running`; `succeeded`, if the results are there as well; else some text for the log.
        A job of another model version is cancelled.
        """
        if handle["launcher"] != type(self._launcher).__name__:
            return "started by another launcher"
        if handle["job"] != self._job.name:  # build_matrix has run again since
            self._launcher.cancel(handle["id"])
            return "another job"
        status = self._launcher.status(handle["id"])
        if status == "succeeded" and not self._has_results():
            return "succeeded, but its results are missing"
        return status

    def attach(self, handle: Handle) -> str | None:
        """Take over a started job; returns the address of a page about it, if there is one."""
        self._job_id = handle["id"]
        return self._launcher.page(self._job_id)

    def wait(self) -> None:
        """Copy the log of the attached job into ours until it ends. Raises like `Launcher.wait`."""
        assert self._job_id is not None
        self._launcher.wait(self._job, self._job_id, _log_line)

    def cancel(self) -> None:
        """End the job if it was started, and do not start it any more. Errors are logged."""
        self._cancelled = True
        if self._job_id is None:
            return
        try:
            self._launcher.cancel(self._job_id)
            log.info("job %s was asked to end", self._job.name)
        except RecsysError as error:
            log.error(
                "job %s could not be cancelled: %s; it ends after worker.timeout_s at the latest",
                self._job.name,
                error,
            )

    def abandon(self, error: BaseException, *, last_try: bool) -> None:
        """Leave the job after an error, and fetch what it has written so far.

        The job is cancelled unless the error may pass and another try follows.
        """
        if last_try or not isinstance(error, StorageError | WorkerError):
            self.cancel()
        if self._is_staged:
            try:
                fetch_results(self._work, self._storage, self._spec)
            except RecsysError as fetch_error:
                log.warning(
                    "what the job has written stays in %s: %s", self._work.root, fetch_error
                )

    def result(self) -> dict[str, Any]:
        """Fetch the results of the job that has ended, and return the content of its result file.

        Raises ModelError if the job failed or left no result, StorageError if it failed because
        storage did.
        """
        if self._is_staged:
            fetch_results(self._work, self._storage, self._spec)
        result = self._read_result(self._storage)
        if result is None:
            is_folder = not self._is_staged and self._storage.root.startswith("file:")
            hint = "; storage.root is a folder: is it the same on the worker?" if is_folder else ""
            raise ModelError(
                f"the worker left no result in {self._storage.root}; "
                f"its last lines above say why{hint}"
            )
        # after an outage the next try uses the staged files and the checkpoints again
        if self._is_staged and not result["outage"]:
            try:
                clear_staged(self._work)
            except StorageError as error:
                log.warning("staged files stay in %s: %s", self._work.root, error)
        if result["status"] != "succeeded":
            raise (StorageError if result["outage"] else ModelError)(
                f"the worker failed: {result['reason']}"
            )
        return result

    @property
    def _is_staged(self) -> bool:
        return self._work is not self._storage

    def _prepare(self) -> None:
        """Stage the job, and delete what an earlier try has left."""
        if self._is_staged:
            stage_job(self._storage, self._work, self._spec)
        for storage in (self._work, self._storage):
            for name in (RESULT, LOG):
                storage.delete(paths.job(self._spec.day, name))

    def _read_log(self) -> bytes:
        path = paths.job(self._spec.day, LOG)
        return self._work.get(path) if self._work.exists(path) else b""

    def _read_result(self, storage: Storage) -> dict[str, Any] | None:
        """The result file of this job, None if there is none."""
        path = paths.job(self._spec.day, RESULT)
        if not storage.exists(path):
            return None
        result = storage.read_record(path, "version", "status")
        return result if result["version"] in (self._spec.version, None) else None

    def _has_results(self) -> bool:
        """Whether the worker's results are complete, staged or fetched already."""
        for storage in (self._work, self._storage):
            try:
                if self._spec.purpose == "serve":
                    verify_version(storage, self._spec.version)
                if self._read_result(storage) is not None:
                    return True
            except ModelError:
                continue
        return False


def _log_line(line: str) -> None:
    """Log a line of the worker's log at its own level."""
    if match := _LINE.fullmatch(line):
        time, level, message = match.groups()
        log.log(logging.getLevelNamesMapping()[level], "%s %s", time, message)
    else:
        log.info("%s", line)
