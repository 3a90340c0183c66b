"""Training on the worker: the job of the day, done where `worker.launcher` says, its log in the task's log."""

import logging
import os
import re
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink, ResumableJobMixin

from recsys_ops.connections import open_storage, storage_options
from recsys_ops.errors import ModelError, RecsysError, SettingsError, StorageError, WorkerError
from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import TASKS_TEST_PREFIX
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey
    from pydantic import JsonValue

    from recsys_ops.launchers.base import Launcher
    from recsys_ops.models.spec import JobSpec
    from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_LINE = re.compile(r"(\d\d:\d\d:\d\d) (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)", re.DOTALL)


class JobPage(BaseOperatorLink):
    """The page of the job, or of its machine, on Google Cloud; the task leaves its address when the job has started."""

    name = "Training job"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        assert isinstance(operator, TrainOnWorkerOperator)
        return operator.page or ""


class TrainOnWorkerOperator(ResumableJobMixin, DayOperator):
    """Run ``python -m recsys_ops.worker <spec url>`` for the day's job where `worker.launcher` says, and wait for it.

    A task that was killed finds the job again that it has started, and there is never more than one of a name. Who ends the
    task ends the job.
    """

    external_id_key = "training_job"
    operator_extra_links = (JobPage(),)

    page: str | None = None
    _job_id: str | None = None
    _killed = False

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        result = self.work_on(open_storage(settings), day, settings, context)
        told = ("version", "device", "cost", "peak_memory_bytes")
        return {
            "worker": settings.worker.launcher,
            **{key: result[key] for key in told},
            "phases": result["seconds"],
        }

    def work_on(
        self, store: "Storage", day: date, settings: Settings, context: "Context"
    ) -> dict[str, Any]:
        """Have the job of a day in `store` done, and return its result. Raises ModelError or StorageError for one that failed."""
        from recsys_ops.launchers.base import Job
        from recsys_ops.launchers.staging import clear_staged, fetch_results
        from recsys_ops.models.files import LOG, SPEC
        from recsys_ops.models.spec import read_spec
        from recsys_ops.storage.serialization import sha256

        self._store = store
        spec = self._spec = read_spec(store, day)
        # two deployments may share a machine, and the same data have the same version
        name = f"recsys-{spec.version}-{sha256(store.root.encode())[:8]}"
        work = self._work = staging_storage(settings, name) or store
        self._launcher = launcher(settings)
        self._job = Job(
            name=name,
            spec_url=work.url(paths.job(day, SPEC)),
            timeout_s=settings.worker.timeout_s,
            environment=worker_environment(settings),
            read_log=lambda: (
                work.get(paths.job(day, LOG)) if work.exists(paths.job(day, LOG)) else b""
            ),
        )
        try:
            self.execute_resumable(context)
        except BaseException as error:
            self._leave(error, context)
            raise
        if work is not store:
            fetch_results(work, store, spec)
        result = _result(store, spec)
        if result is None:
            shared = work is store and store.root.startswith("file:")
            hint = "; storage.root is a folder: is it the same over there?" if shared else ""
            raise ModelError(
                f"the worker left no result in {store.root}; its last lines above say why{hint}"
            )
        if (
            work is not store and not result["outage"]
        ):  # after an outage the next try goes on with what is there
            try:
                clear_staged(work)
            except StorageError as error:
                log.warning("staged files stay: %s", error)
        if result["status"] != "succeeded":
            raise (StorageError if result["outage"] else ModelError)(
                f"the worker failed: {result['reason']}"
            )
        return result

    def submit_job(self, context: "Context") -> "JsonValue":
        from recsys_ops.launchers.staging import stage_job
        from recsys_ops.models.files import LOG, RESULT

        found = self._launcher.find(self._job)
        if found is None:
            if self._work is not self._store:
                stage_job(self._store, self._work, self._spec)
            for place in (self._work, self._store):
                for left in (RESULT, LOG):  # by an earlier try
                    place.delete(paths.job(self._spec.day, left))
            log.info("starting job %s on %s", self._job.name, self._launcher.place)
        else:
            log.info(
                "job %s runs already on %s: following it", self._job.name, self._launcher.place
            )
        if self._killed:
            raise WorkerError("the task was ended before its job was started")
        self._started(found or self._launcher.start(self._job), context)
        if self._killed:
            self.on_kill()
            raise WorkerError("the task was ended while its job was started")
        return {
            "job": self._job.name,
            "launcher": type(self._launcher).__name__,
            "id": str(self._job_id),
        }

    def get_job_status(self, external_id: Any, context: "Context") -> str:
        if external_id["launcher"] != type(self._launcher).__name__:
            return "elsewhere"
        if external_id["job"] != self._job.name:  # of a matrix that was built anew since
            self._launcher.cancel(external_id["id"])
            return "another job"
        status = self._launcher.status(external_id["id"])
        return (
            "succeeded, but its results are not there"
            if status == "succeeded" and not self._finished()
            else status
        )

    def is_job_active(self, status: str) -> bool:
        return status == "running"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "succeeded"

    def poll_until_complete(self, external_id: Any, context: "Context") -> None:
        self._started(external_id["id"], context)
        self._launcher.wait(self._job, external_id["id"], _relay)

    def get_job_result(self, external_id: Any, context: "Context") -> None:
        """What came of it lies in storage, however the task has found the job."""

    def on_kill(self) -> None:
        """Called by Airflow's signal handler, after which the task goes on until it is killed."""
        self._killed = True
        if self._job_id is not None:
            try:
                self._launcher.cancel(self._job_id)
                log.info("job %s was asked to end", self._job.name)
            except RecsysError as error:
                log.error(
                    "job %s could not be ended, at the latest it ends after worker.timeout_s: %s",
                    self._job.name,
                    error,
                )

    def _leave(self, error: BaseException, context: "Context") -> None:
        """End the job unless another try will follow it, and bring back what it had to say."""
        from recsys_ops.launchers.staging import fetch_results

        passing = isinstance(error, StorageError | WorkerError)
        if not passing or _is_last_try(context):
            self.on_kill()
        if self._work is not self._store:
            try:
                fetch_results(self._work, self._store, self._spec)
            except RecsysError as also:
                log.warning("what the job has written stays in %s: %s", self._work.root, also)

    def _started(self, job_id: str, context: "Context") -> None:
        if self._job_id != job_id:
            self._job_id, self.page = job_id, self._launcher.page(job_id)
            if self.page:
                log.info("the job's page: %s", self.page)
                if "ti" in context:
                    context["ti"].xcom_push(key=JobPage().xcom_key, value=self.page)

    def _finished(self) -> bool:
        from recsys_ops.models.version import verify_version

        for place in (
            self._work,
            self._store,
        ):  # what was brought back is cleared from where it was made
            try:
                if self._spec.purpose == "serve":
                    verify_version(place, self._spec.version)
                if _result(place, self._spec) is not None:
                    return True
            except ModelError:
                continue
        return False


def _is_last_try(context: "Context") -> bool:
    """Whether nobody comes back for the job; ``airflow tasks test`` never does."""
    ti = context.get("ti")
    return ti is None or ti.run_id.startswith(TASKS_TEST_PREFIX) or ti.try_number > ti.max_tries


def launcher(settings: Settings) -> "Launcher":
    """The place that `worker.launcher` names."""
    match settings.worker.launcher:
        case "local":
            from recsys_ops.launchers.supervised import Local

            return Local({name: os.environ[name] for name in _LOCAL if name in os.environ})
        case "ssh":
            from recsys_ops.launchers.ssh import Ssh

            return Ssh(settings.worker)
        case "vertex":
            from recsys_ops.launchers.vertex import Vertex

            assert settings.worker.vertex is not None
            return Vertex(settings.worker.vertex, settings.worker.google_conn_id)


# of Airflow's environment a process beside the task gets nothing else
_LOCAL = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


def staging_storage(settings: Settings, name: str) -> "Storage | None":
    """Where the files of a job of this name lie for its worker, None when they lie where all the others do."""
    from recsys_ops.storage.objects import Storage

    url = settings.worker.staging_url
    return Storage(f"{url.rstrip('/')}/{name}", storage_options(settings, url)) if url else None


def worker_environment(settings: Settings) -> dict[str, str]:
    """The credentials of the storage that the worker reads, as object_store takes them from the environment.

    Empty where the connection has no secret, and on Vertex AI, where whoever may see a job may see its environment: the
    machine's own identity is used there.
    """
    where, url = settings.worker.launcher, settings.worker.staging_url or settings.storage.root
    if where == "vertex":
        return {}
    options = storage_options(settings, url)
    if where == "ssh" and "federated_token_file" in options:
        raise SettingsError(
            f"connection {settings.storage.conn_id} has a workload identity, which is this machine's alone: a worker elsewhere "
            "needs a key, a SAS or a service principal, or worker.staging_url = gs://… and an identity of its own"
        )
    service, own = (
        ("GOOGLE", ("GOOGLE_",))
        if url.startswith("gs:")
        else ("AZURE_STORAGE", ("AZURE_", "AZURITE_"))
    )
    ours = (
        {name: value for name, value in os.environ.items() if name.startswith(own)}
        if where == "local"
        else {}
    )
    return {**ours, **{f"{service}_{key.upper()}": value for key, value in options.items()}}


def _result(store: "Storage", spec: "JobSpec") -> dict[str, Any] | None:
    from recsys_ops.models.files import RESULT

    path = paths.job(spec.day, RESULT)
    result: dict[str, Any] | None = store.read_json(path) if store.exists(path) else None
    return result if result and result["version"] in (spec.version, None) else None


def _relay(line: str) -> None:
    """A line of the worker's log, in ours."""
    if found := _LINE.fullmatch(line):
        at, level, message = found.groups()
        log.log(logging.getLevelNamesMapping()[level], "%s %s", at, message)
    else:
        log.info("%s", line)
