"""What every launcher does, and what it gets to know about the job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

JobStatus = Literal["running", "succeeded", "failed", "gone"]


@dataclass(frozen=True)
class Job:
    """One training job.

    name : the same for every try at the same model version; lower-case letters, digits, hyphens
    spec_url : the argument of ``python -m recsys_ops.worker``
    timeout_s : the job is ended after this many seconds
    environment : for the worker's process alone, such as the storage's credentials; never shown,
        and never part of a command line
    read_log : returns the log that the worker has written to storage so far
    """

    name: str
    spec_url: str
    timeout_s: int
    environment: Mapping[str, str] = field(repr=False)
    read_log: Callable[[], bytes] = field(repr=False)


class Launcher(Protocol):
    """Runs jobs somewhere. Another process finds a job by its id, which is a text.

    Every method raises WorkerError if the place cannot be reached, SettingsError if it refuses our
    login or our request.

    place : its name in messages
    """

    place: str

    def find(self, job: Job) -> str | None:
        """The id of the job of this name that runs or waits to run; None if there is none."""

    def start(self, job: Job) -> str:
        """Start a job that `find` has not found; returns its id."""

    def status(self, job_id: str) -> JobStatus:
        """`running`, also before the job has begun; `gone` if nobody knows how it ended."""

    def wait(self, job: Job, job_id: str, write_line: Callable[[str], None]) -> None:
        """Pass each line of the job's log to `write_line`; return when the job has exited itself.

        Raises WorkerError if the job did not end by itself: it was lost, preempted or never began.
        Raises ModelError if another try would end the same way: it ran out of memory or of time.
        """

    def cancel(self, job_id: str) -> None:
        """Cancel the job if it runs; returns within seconds, perhaps before the job has ended."""

    def page(self, job_id: str) -> str | None:
        """The address of a page about the job, if there is one."""
