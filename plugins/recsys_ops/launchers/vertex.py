"""The training job on Google's Vertex AI: a CustomJob with one machine, spoken to over REST."""

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from recsys_ops.errors import ModelError, SettingsError, StorageError, WorkerError
from recsys_ops.launchers.base import Job, JobStatus, Launcher
from recsys_ops.launchers.google_rest import GoogleRest, NotFoundError
from recsys_ops.settings import VertexSettings
from recsys_ops.worker import EXIT_NO_RESULT

log = logging.getLogger(__name__)

# a machine with a card is there in 5 to 10 minutes, and a job that is cancelled gone in less
_MARGIN = timedelta(minutes=15)
# before a job whose creation was not answered is looked for, in polls
_PAUSES = (1, 3, 8)
_NEEDS = (
    "roles/aiplatform.user in the project and roles/iam.serviceAccountUser on worker.vertex.service_account, and the project "
    "the Vertex AI API enabled"
)
_STATUS: dict[str, JobStatus] = {
    "SUCCEEDED": "succeeded",
    "PARTIALLY_SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "failed",
    "EXPIRED": "failed",
}
# google.rpc.Code: RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE
_PASSING = {8, 10, 13, 14}
_TAKEN_AWAY = "preempt|stockout|insufficient|enough resources"
# signals 9 and 15, as they are and as a shell reports them
_KILLED = {9, 15, 137, 143}


class Vertex(Launcher):
    """Jobs on Vertex AI, which ends them itself after their time.

    The job's machine gets nothing but the spec's URL: whoever may look at the job may read all that it was started with, so the
    worker's environment stays here, and the job's service account must have the right to read and write the staging bucket.
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
        """The id of the job of this name that neither has ended nor is being cancelled."""
        over = " AND ".join(f'state!="JOB_STATE_{state}"' for state in (*_STATUS, "CANCELLING"))
        found = self._rest.call(
            "GET", self._jobs, params={"filter": f'display_name="{job.name}" AND {over}'}
        )
        return next((json.dumps(one["name"]) for one in found.get("customJobs", [])), None)

    def start(self, job: Job) -> str:
        """Create the job. Where the answer is lost, it is looked for before it is created once more."""
        for pause in _PAUSES:
            try:
                return self._create(job)
            except WorkerError as error:
                log.warning("%s; looking whether the job was created all the same", error)
            time.sleep(pause * self._poll_s)
            if found := self.find(job):
                return found
        return self._create(job)

    def status(self, job_id: str) -> JobStatus:
        try:
            state = _state(self._get(job_id))
        except NotFoundError:
            return "gone"
        return "failed" if state == "CANCELLING" else _STATUS.get(state, "running")

    def wait(self, job: Job, job_id: str, tell: Callable[[str], None]) -> None:
        """Return when the job has ended by itself, having told its log and each change of its state.

        Raises ModelError when it took longer than its time, ran out of memory or was cancelled; SettingsError when its container
        could not be started; WorkerError when its machine was taken away or failed, or none was to be had.
        """
        state, lines, pause = "", _Lines(job.read_log, tell), self._poll_s / 10
        while state not in _STATUS:
            try:
                found = self._get(job_id)
            except NotFoundError as error:
                raise WorkerError(
                    f"the job was deleted, nobody knows how it ended: {error}"
                ) from error
            if _state(found) != state:
                tell(
                    f"Vertex AI: {_state(found).lower()}"
                    + ("" if state else f", see {self.page(job_id)}")
                )
                state = _state(found)
            if "startTime" in found:
                lines.tell_new(everything=state in _STATUS)
            if state not in _STATUS:
                self._cancel_if_stuck(job, job_id, found)
                time.sleep(pause)
                pause = min(1.5 * pause, self._poll_s)
        if _STATUS[state] == "failed":
            self._judge(job, job_id, found, tell)

    def cancel(self, job_id: str) -> None:
        def over() -> bool:
            try:
                return _state(self._get(job_id)) in {*_STATUS, "CANCELLING"}
            except NotFoundError:
                return True

        self._cancelled = True
        if not over():
            try:
                self._rest.call("POST", f"v1/{json.loads(job_id)}:cancel", json={})
            except SettingsError:
                if not over():
                    raise

    def page(self, job_id: str) -> str:
        number = json.loads(job_id).rpartition("/")[2]
        place = f"{self._settings.region}/training/{number}?project={self._settings.project}"
        return f"https://console.cloud.google.com/vertex-ai/locations/{place}"

    def _create(self, job: Job) -> str:
        return json.dumps(
            self._rest.call(
                "POST", self._jobs, repeat=False, json=_custom_job(self._settings, job)
            )["name"]
        )

    def _get(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._rest.call("GET", f"v1/{json.loads(job_id)}")
        return found

    def _cancel_if_stuck(self, job: Job, job_id: str, found: Mapping[str, Any]) -> None:
        """Give a job up that has waited for a machine, or gone on, for longer than a training may take."""
        since = found.get("startTime", found["createTime"])
        if datetime.now(UTC) - _time(since) < timedelta(seconds=job.timeout_s) + _MARGIN:
            return
        self.cancel(job_id)
        wanted = self._settings
        if "startTime" in found:
            raise WorkerError(
                f"the job runs since {since}, longer than worker.timeout_s = {job.timeout_s} s, and Vertex AI has not ended "
                f"it: it was cancelled, see {self.page(job_id)}"
            )
        raise WorkerError(
            f"the job waits since {since} and was cancelled: no {wanted.machine_type} with {wanted.accelerator_count} "
            f"{wanted.accelerator_type}{' on spot' if wanted.spot else ''} was free in {wanted.region}, or the project's quota "
            f"is used up; try another region or accelerator{', or spot: false' if wanted.spot else ''} in worker.vertex, "
            f"see {self.page(job_id)}"
        )

    def _judge(
        self, job: Job, job_id: str, found: Mapping[str, Any], tell: Callable[[str], None]
    ) -> None:
        """Raise what the end of a failed job means; return where its container has ended by itself."""
        error, state, page = found.get("error", {}), _state(found), self.page(job_id)
        message = error.get("message", f"no reason is given, state {state}")
        ran = (
            _time(found["endTime"]) - _time(found["startTime"])
            if {"startTime", "endTime"} <= found.keys()
            else timedelta(0)
        )
        if ran >= timedelta(seconds=job.timeout_s):
            raise ModelError(
                f"the training took longer than worker.timeout_s = {job.timeout_s} s and was ended: give it more, or a faster "
                f"accelerator in worker.vertex; Vertex AI says: {message}, see {page}"
            )
        if state == "CANCELLED" and self._cancelled:
            raise WorkerError(f"the job was cancelled together with its task, see {page}")
        if state == "CANCELLED":
            raise ModelError(
                f"the job was cancelled by somebody: clear the task to train again; {message}, see {page}"
            )
        if "out-of-memory" in message:
            raise ModelError(
                f"the machine's memory was too small: choose a larger worker.vertex.machine_type; {message}, see {page}"
            )
        exited = re.search(r"non-zero status of (\d+)", message)
        if exited and "StartError" not in message:
            if int(exited[1]) == EXIT_NO_RESULT:
                raise WorkerError(
                    f"the worker could not reach its storage to leave a result: {message}, see {page}"
                )
            if int(exited[1]) in _KILLED:
                raise WorkerError(f"the worker was killed from outside: {message}, see {page}")
            tell(f"Vertex AI: {message}")
            return
        if (
            error.get("code") in _PASSING
            or state == "EXPIRED"
            or re.search(_TAKEN_AWAY, message, re.IGNORECASE)
        ):
            raise WorkerError(
                f"Vertex AI had no machine for the job, or took it away: {message}, see {page}"
            )
        raise SettingsError(
            f"Vertex AI could not run the job: {message}; check worker.vertex, image {self._settings.image}, see {page}"
        )


def _custom_job(settings: VertexSettings, job: Job) -> dict[str, Any]:
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


def _state(found: Mapping[str, Any]) -> str:
    return str(found["state"]).removeprefix("JOB_STATE_")


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


class _Lines:
    """The lines of a growing log, each told once; a log that was begun anew, by a worker started again, is told anew."""

    def __init__(self, read: Callable[[], bytes], tell: Callable[[str], None]) -> None:
        self._read, self._tell, self._told = read, tell, b""

    def tell_new(self, *, everything: bool) -> None:
        """Tell the new whole lines; with `everything` also a last one without an end."""
        try:
            written = self._read()
        except StorageError as error:  # no reason to lose sight of the job
            log.warning("the worker's log cannot be read just now: %s", error)
            return
        if not written.startswith(self._told):
            self._told = b""
        end = len(written) if everything else written.rfind(b"\n") + 1
        for line in written[len(self._told) : end].decode(errors="replace").splitlines():
            self._tell(line)
        self._told = written[:end]
