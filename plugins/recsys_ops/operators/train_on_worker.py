"""Training on the worker: the job of the day runs where `worker.launcher` says."""

import logging
import os
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink, ResumableJobMixin

from recsys_ops.connections import open_storage, staging_storage, worker_environment
from recsys_ops.operators.base import DayOperator
from recsys_ops.run_day import TASKS_TEST_PREFIX
from recsys_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey
    from pydantic import JsonValue

    from recsys_ops.launchers.base import Launcher
    from recsys_ops.launchers.job_run import JobRun
    from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

# the environment variables of Airflow that a worker on the same machine gets
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


class JobPage(BaseOperatorLink):
    """A link to the page of the job, or of its machine, on Google Cloud."""

    name = "Training job"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        assert isinstance(operator, TrainOnWorkerOperator)
        return operator.page or ""


class TrainOnWorkerOperator(ResumableJobMixin, DayOperator):
    """Run ``python -m recsys_ops.worker <spec url>`` where `worker.launcher` says, and wait for it.

    The worker's log is copied into the task's log. A retry re-attaches to the running job; job
    names are unique, so that a job never runs twice at a time. Cancelling the task cancels the job.
    """

    external_id_key = "training_job"
    operator_extra_links = (JobPage(),)

    page: str | None = None
    _job_run: "JobRun | None" = None
    _killed = False

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        result = self.run_job(open_storage(settings), day, settings, context)
        figures = ("version", "device", "cost", "peak_memory_bytes")
        return {
            "worker": settings.worker.launcher,
            **{key: result[key] for key in figures},
            "phases": result["seconds"],
        }

    def run_job(
        self, storage: "Storage", day: date, settings: Settings, context: "Context"
    ) -> dict[str, Any]:
        """Run the job of a day in `storage`, and return its result. Raises like `JobRun.result`."""
        self._job_run = job_run = open_job_run(storage, day, settings)
        if self._killed:
            job_run.cancel()
        try:
            self.execute_resumable(context)
        except BaseException as error:
            job_run.abandon(error, last_try=_is_last_try(context))
            raise
        return job_run.result()

    def submit_job(self, context: "Context") -> "JsonValue":
        return {**self._current.start()}

    def get_job_status(self, external_id: Any, context: "Context") -> str:
        return self._current.state(external_id)

    def is_job_active(self, status: str) -> bool:
        return status == "running"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "succeeded"

    def poll_until_complete(self, external_id: Any, context: "Context") -> None:
        self.page = self._current.attach(external_id)
        if self.page:
            log.info("the job's page: %s", self.page)
            if "ti" in context:
                context["ti"].xcom_push(key=JobPage().xcom_key, value=self.page)
        self._current.wait()

    def get_job_result(self, external_id: Any, context: "Context") -> None:
        """Nothing: `run_job` reads the result from storage, however the job was found."""

    def on_kill(self) -> None:
        """Cancel the job. Airflow's signal handler calls this; the task runs on for a moment."""
        self._killed = True
        if self._job_run:
            self._job_run.cancel()

    @property
    def _current(self) -> "JobRun":
        assert self._job_run is not None
        return self._job_run


def open_job_run(storage: "Storage", day: date, settings: Settings) -> "JobRun":
    """The job of a day in `storage`, on the launcher of the settings, staged if they say so."""
    from recsys_ops.launchers.job_run import JobRun, job_name
    from recsys_ops.models.spec import read_spec

    spec = read_spec(storage, day)
    return JobRun(
        open_launcher(settings),
        storage,
        staging_storage(settings, job_name(storage, spec)) or storage,
        spec,
        timeout_s=settings.worker.timeout_s,
        environment=worker_environment(settings),
    )


def open_launcher(settings: Settings) -> "Launcher":
    """The launcher that `worker.launcher` names."""
    match settings.worker.launcher:
        case "local":
            from recsys_ops.launchers.supervised import Local

            return Local({name: os.environ[name] for name in _PASSED_ON if name in os.environ})
        case "ssh":
            from recsys_ops.launchers.ssh import Ssh

            return Ssh(settings.worker)
        case "vertex":
            from recsys_ops.launchers.vertex import Vertex

            assert settings.worker.vertex is not None
            return Vertex(settings.worker.vertex, settings.worker.google_conn_id)


def _is_last_try(context: "Context") -> bool:
    """Whether no other try follows; ``airflow tasks test`` never makes one."""
    ti = context.get("ti")
    return ti is None or ti.run_id.startswith(TASKS_TEST_PREFIX) or ti.try_number > ti.max_tries
