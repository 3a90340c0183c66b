"""What every launcher does, and what it is told about the job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

JobStatus = Literal["running", "succeeded", "failed", "gone"]


@dataclass(frozen=True)
class Job:
    """One training job.

    name : the same for every try at the same model version; lower-case letters, digits and hyphens
    spec_url : what ``python -m recsys_ops.worker`` is given
    timeout_s : after so many seconds the job is ended
    environment : the storage's credentials and the like, for the worker's process alone: never shown, never in a command line
    read_log : returns what the worker has written to its log in storage so far
    """

    name: str
    spec_url: str
    timeout_s: int
    environment: Mapping[str, str] = field(repr=False)
    read_log: Callable[[], bytes] = field(repr=False)


class Launcher(Protocol):
    """A place where jobs run. An id is JSON text that another process finds the job by.

    Every method raises WorkerError where the place cannot be reached, SettingsError where it refuses us.

    place : its name in messages
    """

    place: str

    def find(self, job: Job) -> str | None:
        """The id of the job of this name that runs or waits to run, if there is one."""

    def start(self, job: Job) -> str:
        """Start the job, which `find` has not found; returns its id."""

    def status(self, job_id: str) -> JobStatus:
        """running, also before it runs; gone: nobody knows how it ended."""

    def wait(self, job: Job, job_id: str, tell: Callable[[str], None]) -> None:
        """Return when the job has ended, having told each line of its log.

        Raises WorkerError when it ended otherwise than by itself (lost, taken away, never started), ModelError when that was
        its own doing (killed for want of memory, longer than its time).
        """

    def cancel(self, job_id: str) -> None:
        """End the job, if it runs; returns within seconds, before it has ended."""

    def page(self, job_id: str) -> str | None:
        """The address of a page about the job."""
