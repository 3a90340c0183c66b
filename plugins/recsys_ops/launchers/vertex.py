"""Jobs on Google's Vertex AI: a CustomJob with one machine, over its REST interface."""

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from recsys_ops.errors import ModelError, RecsysError, SettingsError, StorageError, WorkerError
from recsys_ops.launchers.base import Job, JobStatus, Launcher
from recsys_ops.launchers.google_rest import GoogleRest, NotFoundError
from recsys_ops.settings import VertexSettings
from recsys_ops.worker import EXIT_NO_RESULT

log = logging.getLogger(__name__)

# a machine with a GPU starts in 5 to 10 minutes; a cancelled job ends sooner
_MARGIN = timedelta(minutes=15)
# how long to wait before looking for a job whose creation was not answered, in polls
_PAUSES = (1, 3, 8)
_NEEDS = (
    "roles/aiplatform.user in the project and roles/iam.serviceAccountUser on "
    "worker.vertex.service_account, and the project needs the Vertex AI API enabled"
)
_STATUS: dict[str, JobStatus] = {
    "SUCCEEDED": "succeeded",
    "PARTIALLY_SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "failed",
    "EXPIRED": "failed",
}
# google.rpc.Code: RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE
_TEMPORARY_CODES = {8, 10, 13, 14}
_NO_MACHINE = "preempt|stockout|insufficient|enough resources"
# signals 9 and 15, as numbers and as a shell reports them
_KILLED = {9, 15, 137, 143}


class Vertex(Launcher):
    """Runs jobs on Vertex AI, which ends them itself when their time is over.

    The job gets only the spec's URL: everybody who can see the job can see its environment. So the
    job's service account needs the right to read and write the staging bucket.

    poll_s : seconds between two requests for the job's state
    """

    def __init__(self, settings: VertexSettings, conn_id: str, *, poll_s: float = 5.0) -> None:
        self._settings, self._conn_id, self._poll_s = settings, conn_id, poll_s
        self.place = f"Vertex AI in {settings.region}"
        self._cancelled = False
        self._jobs = f"v1/projects/{settings.project}/locations/{settings.region}/customJobs"

    @cached_property
    def _rest(self) -> GoogleRest:
        endpoint = (
            self._settings.endpoint or f"https://{self._settings.region}-aiplatform.googleapis.com"
        )
        return GoogleRest(endpoint, self._conn_id, _NEEDS)

    def find(self, job: Job) -> str | None:
        """The id of the job of this name that has not ended and is not being cancelled."""
        ended = " AND ".join(f'state!="JOB_STATE_{state}"' for state in (*_STATUS, "CANCELLING"))
        answer = self._rest.call(
            "GET", self._jobs, params={"filter": f'display_name="{job.name}" AND {ended}'}
        )
        return next((json.dumps(found["name"]) for found in answer.get("customJobs", [])), None)

    def start(self, job: Job) -> str:
        """Create the job. If the answer is lost, look for the job before creating it again."""
        for pause in _PAUSES:
            try:
                return self._create(job)
            except WorkerError as error:
                log.warning("%s; looking whether the job was created all the same", error)
            time.sleep(pause * self._poll_s)
            if job_id := self.find(job):
                return job_id
        return self._create(job)

    def status(self, job_id: str) -> JobStatus:
        try:
            state = _state(self._get(job_id))
        except NotFoundError:
            return "gone"
        return "failed" if state == "CANCELLING" else _STATUS.get(state, "running")

    def wait(self, job: Job, job_id: str, write_line: Callable[[str], None]) -> None:
        """Pass the job's log and each change of its state to `write_line`; return when it exits.

        Raises ModelError if it ran out of time or memory or was cancelled, SettingsError if its
        container could not be started, WorkerError if there was no machine for it or the machine
        was preempted or failed.
        """
        state, lines, pause = "", _Lines(job.read_log, write_line), self._poll_s / 10
        while state not in _STATUS:
            try:
                custom_job = self._get(job_id)
            except NotFoundError as error:
                raise WorkerError(
                    f"the job was deleted, and nobody knows how it ended: {error}"
                ) from error
            if _state(custom_job) != state:
                page = "" if state else f", see {self.page(job_id)}"
                state = _state(custom_job)
                write_line(f"Vertex AI: {state.lower()}{page}")
            if "startTime" in custom_job:
                lines.write_new(everything=state in _STATUS)
            if state not in _STATUS:
                self._cancel_if_stuck(job, job_id, custom_job)
                time.sleep(pause)
                pause = min(1.5 * pause, self._poll_s)
        if _STATUS[state] == "failed":
            self._raise_failure(job, job_id, custom_job)
            write_line(f"Vertex AI: {_message(custom_job)}")

    def cancel(self, job_id: str) -> None:
        def has_ended() -> bool:
            try:
                return _state(self._get(job_id)) in {*_STATUS, "CANCELLING"}
            except NotFoundError:
                return True

        self._cancelled = True
        if not has_ended():
            try:
                self._rest.call("POST", f"v1/{json.loads(job_id)}:cancel", json={})
            except SettingsError:
                if not has_ended():
                    raise

    def page(self, job_id: str) -> str:
        number = json.loads(job_id).rpartition("/")[2]
        path = f"{self._settings.region}/training/{number}?project={self._settings.project}"
        return f"https://console.cloud.google.com/vertex-ai/locations/{path}"

    def _create(self, job: Job) -> str:
        body = _custom_job(self._settings, job)
        return json.dumps(self._rest.call("POST", self._jobs, repeat=False, json=body)["name"])

    def _get(self, job_id: str) -> dict[str, Any]:
        custom_job: dict[str, Any] = self._rest.call("GET", f"v1/{json.loads(job_id)}")
        return custom_job

    def _cancel_if_stuck(self, job: Job, job_id: str, custom_job: Mapping[str, Any]) -> None:
        """Cancel a job that has waited for a machine, or has run, longer than a training may take.

        Raises WorkerError after that.
        """
        since = custom_job.get("startTime", custom_job["createTime"])
        if datetime.now(UTC) - _time(since) < timedelta(seconds=job.timeout_s) + _MARGIN:
            return
        self.cancel(job_id)
        page, settings = self.page(job_id), self._settings
        if "startTime" in custom_job:
            raise WorkerError(
                f"the job runs since {since}, longer than worker.timeout_s = {job.timeout_s} s, "
                f"and Vertex AI has not ended it: it was cancelled, see {page}"
            )
        raise WorkerError(
            f"the job waits since {since} and was cancelled: no {settings.machine_type} with "
            f"{settings.accelerator_count} {settings.accelerator_type}"
            f"{' on spot' if settings.spot else ''} was free in {settings.region}, "
            "or the project's quota is used up; try another region or accelerator"
            f"{', or spot: false' if settings.spot else ''} in worker.vertex, see {page}"
        )

    def _raise_failure(self, job: Job, job_id: str, custom_job: Mapping[str, Any]) -> None:
        """Raise the error of a failed job; return if its worker has exited by itself."""
        failure = _failure(custom_job, job.timeout_s, self._cancelled)
        for applies, error, text in _FAILURES:
            if applies(failure):
                reason = text.format(
                    message=failure.message, timeout_s=job.timeout_s, image=self._settings.image
                )
                raise error(f"{reason}, see {self.page(job_id)}")


@dataclass(frozen=True)
class _Failure:
    """What is known of a job that has failed.

    code : of google.rpc.Code
    message : Vertex AI's own
    exit_code : of the worker; None if the worker did not exit
    timed_out : whether the job ran as long as it may
    cancelled_by_us : whether this process has cancelled the job
    """

    state: str
    code: int | None
    message: str
    exit_code: int | None
    timed_out: bool
    cancelled_by_us: bool


# The first row that applies is raised; if none does, the worker has exited by itself.
_FAILURES: tuple[tuple[Callable[[_Failure], bool], type[RecsysError], str], ...] = (
    (
        lambda failure: failure.timed_out,
        ModelError,
        "the training took longer than worker.timeout_s = {timeout_s} s and was ended: give it "
        "more time, or a faster accelerator in worker.vertex; Vertex AI says: {message}",
    ),
    (
        lambda failure: failure.state == "CANCELLED" and failure.cancelled_by_us,
        WorkerError,
        "the job was cancelled together with its task",
    ),
    (
        lambda failure: failure.state == "CANCELLED",
        ModelError,
        "the job was cancelled by somebody: clear the task to train again; {message}",
    ),
    (
        lambda failure: "out-of-memory" in failure.message,
        ModelError,
        "the machine's memory was too small: choose a larger worker.vertex.machine_type; {message}",
    ),
    (
        lambda failure: failure.exit_code == EXIT_NO_RESULT,
        WorkerError,
        "the worker could not write its result to storage: {message}",
    ),
    (
        lambda failure: failure.exit_code in _KILLED,
        WorkerError,
        "the worker was killed from outside: {message}",
    ),
    (
        lambda failure: failure.exit_code is None and _is_temporary(failure),
        WorkerError,
        "Vertex AI had no machine for the job, or took it away: {message}",
    ),
    (
        lambda failure: failure.exit_code is None,
        SettingsError,
        "Vertex AI could not run the job: {message}; check worker.vertex, image {image}",
    ),
)


def _failure(custom_job: Mapping[str, Any], timeout_s: int, cancelled_by_us: bool) -> _Failure:
    message = _message(custom_job)
    exited = re.search(r"non-zero status of (\d+)", message)
    ran = timedelta(0)
    if {"startTime", "endTime"} <= custom_job.keys():
        ran = _time(custom_job["endTime"]) - _time(custom_job["startTime"])
    return _Failure(
        state=_state(custom_job),
        code=custom_job.get("error", {}).get("code"),
        message=message,
        exit_code=int(exited[1]) if exited and "StartError" not in message else None,
        timed_out=ran >= timedelta(seconds=timeout_s),
        cancelled_by_us=cancelled_by_us,
    )


def _is_temporary(failure: _Failure) -> bool:
    """Whether another try may get a machine."""
    return (
        failure.code in _TEMPORARY_CODES
        or failure.state == "EXPIRED"
        or re.search(_NO_MACHINE, failure.message, re.IGNORECASE) is not None
    )


def _message(custom_job: Mapping[str, Any]) -> str:
    default = f"no reason is given, state {_state(custom_job)}"
    return str(custom_job.get("error", {}).get("message", default))


def _custom_job(settings: VertexSettings, job: Job) -> dict[str, Any]:
    """The body of the request that creates a job."""
    pool = {
        "machineSpec": {
            "machineType": settings.machine_type,
            "acceleratorType": settings.accelerator_type,
            "acceleratorCount": settings.accelerator_count,
        },
        "replicaCount": "1",
        "containerSpec": {
            "imageUri": settings.image,
            "command": ["python3", "-m", "recsys_ops.worker"],
            "args": [job.spec_url],
        },
    }
    scheduling = {
        "timeout": f"{job.timeout_s}s",
        "strategy": "SPOT" if settings.spot else "STANDARD",
    }
    return {
        "displayName": job.name,
        "labels": {"application": "recsys-ops"},
        "jobSpec": {
            "workerPoolSpecs": [pool],
            "scheduling": scheduling,
            "serviceAccount": settings.service_account,
        },
    }


def _state(custom_job: Mapping[str, Any]) -> str:
    return str(custom_job["state"]).removeprefix("JOB_STATE_")


def _time(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)


class _Lines:
    """Reads a growing log and writes each line once.

    If the worker was started again and began a new log, the new log is written as well.
    """

    def __init__(self, read_log: Callable[[], bytes], write_line: Callable[[str], None]) -> None:
        self._read_log, self._write_line, self._written = read_log, write_line, b""

    def write_new(self, *, everything: bool) -> None:
        """Write the new complete lines; with `everything` also a last line without its line end."""
        try:
            content = self._read_log()
        except StorageError as error:  # the job runs on, so we go on following it
            log.warning("the worker's log cannot be read just now: %s", error)
            return
        if not content.startswith(self._written):
            self._written = b""
        end = len(content) if everything else content.rfind(b"\n") + 1
        for line in content[len(self._written) : end].decode(errors="replace").splitlines():
            self._write_line(line)
        self._written = content[:end]
