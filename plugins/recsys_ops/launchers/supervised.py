"""Jobs with a supervisor beside them: on this machine, or on a machine that is reached by SSH.

Both launchers run ``recsys_ops.launchers.supervisor`` on the job's machine; they differ only in how
they reach it.
"""

import json
import logging
import os
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import recsys_ops
from recsys_ops.errors import ModelError, SettingsError, WorkerError
from recsys_ops.launchers.base import Job, JobStatus, Launcher
from recsys_ops.launchers.supervisor import HEARTBEAT, TIMED_OUT
from recsys_ops.worker import EXIT_NO_RESULT

log = logging.getLogger(__name__)

# longer than the pause between two heartbeats of `follow`
SILENT_S = 8
_PAUSE_S = 3


class SupervisedLauncher(Launcher):
    """A launcher whose jobs have a supervisor.

    patience_s : how long the machine may be out of reach before an error is raised
    """

    patience_s: float = 0

    @abstractmethod
    def _call(
        self, arguments: list[str], stdin: bytes, receive: Callable[[bytes], None]
    ) -> tuple[int, str]:
        """Run ``python -m recsys_ops.launchers.supervisor <arguments>`` on the job's machine.

        receive : gets the standard output as it comes

        Returns the exit code and the standard error. Raises WorkerError if the machine is or gets
        out of reach.
        """

    def find(self, job: Job) -> str | None:
        return job.name if self.status(job.name) == "running" else None

    def start(self, job: Job) -> str:
        self._ask(
            ["start", job.name, job.spec_url, str(job.timeout_s)],
            json.dumps(dict(job.environment)).encode(),
        )
        return job.name

    def status(self, job_id: str) -> JobStatus:
        match self._ask(["status", job_id]):
            case "running":
                return "running"
            case "gone":
                return "gone"
            case "0":
                return "succeeded"
            case _:
                return "failed"

    def wait(self, job: Job, job_id: str, write_line: Callable[[str], None]) -> None:
        lines = _Lines(write_line)
        self._retry(
            lambda: self._call(["follow", job_id, str(lines.received)], b"", lines.receive), lines
        )
        lines.end()
        match self._ask(["status", job_id]):
            case "running":
                raise WorkerError(
                    f"the output of {job_id} ended, but the job on {self.place} still runs"
                )
            case "gone":
                raise WorkerError(
                    f"{self.place} has lost the job {job_id}: the machine was restarted, or the "
                    "job's processes were killed; the next try resumes from the last checkpoint"
                )
            case code if int(code) == TIMED_OUT:
                raise ModelError(
                    f"the job was ended after worker.timeout_s = {job.timeout_s} s: "
                    "raise it, or use a faster machine"
                )
            case code if int(code) == EXIT_NO_RESULT:
                raise WorkerError(
                    "the worker could not write its result to storage: its last lines above say why"
                )
            case code if int(code) > 128:
                reason = (
                    ", most likely because memory ran out: the lines above say how much it needs"
                    if code == "137"
                    else ""
                )
                raise WorkerError(
                    f"the job on {self.place} was ended by signal {int(code) - 128}{reason}"
                )

    def cancel(self, job_id: str) -> None:
        self._call(["cancel", job_id], b"", lambda data: None)

    def page(self, job_id: str) -> str | None:
        return None

    def _make_ready(self) -> None:
        """Called before each try to reach the machine."""

    def _ask(self, arguments: list[str], stdin: bytes = b"") -> str:
        """The last line of the supervisor's answer."""
        output = bytearray()
        self._retry(lambda: self._call(arguments, stdin, output.extend))
        return bytes(output).decode(errors="replace").strip().rpartition("\n")[2]

    def _retry(self, call: Callable[[], tuple[int, str]], lines: "_Lines | None" = None) -> None:
        """Call until the machine has been out of reach for more than `patience_s`.

        lines : the time counts from the last output that it got

        Raises WorkerError, or SettingsError if the machine can be reached and the call fails.
        """
        started = time.monotonic()
        while True:
            try:
                self._make_ready()
                code, errors = call()
                break
            except WorkerError as error:
                away_s = time.monotonic() - max(started, lines.last_output if lines else started)
                if away_s > self.patience_s:
                    raise WorkerError(
                        f"{error}, for {away_s:.0f} s now; "
                        "the next try follows the job if it still runs there"
                    ) from error
                log.warning("%s; trying again for %.0f s", error, self.patience_s - away_s)
                time.sleep(_PAUSE_S)
        if code < 0:
            raise WorkerError(
                f"the process that follows the job on {self.place} was ended by signal {-code}"
            )
        if code != 0:
            last = errors.strip().splitlines() or ["no error message"]
            raise SettingsError(
                f"{self.place} cannot run the worker (exit code {code}): {last[-1]}"
            )


class Local(SupervisedLauncher):
    """Runs jobs on the task's machine. A job outlives its task: a retry finds it.

    environment : the environment of the worker, without the job's own
    """

    place = "this machine"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "PYTHONPATH": str(Path(recsys_ops.__file__).parents[1])}

    def _call(
        self, arguments: list[str], stdin: bytes, receive: Callable[[bytes], None]
    ) -> tuple[int, str]:
        command = [sys.executable, "-m", "recsys_ops.launchers.supervisor", *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(  # noqa: S603
            command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert process.stdin and process.stdout and process.stderr
        with process:
            process.stdin.write(stdin)
            process.stdin.close()
            while data := os.read(process.stdout.fileno(), 1 << 16):
                receive(data)
            errors = process.stderr.read().decode(errors="replace")
        return process.returncode, errors


class _Lines:
    """Cuts output into lines.

    received : the number of bytes of the job's output so far, without heartbeats
    last_output : when something came last, by `time.monotonic`
    """

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self.received, self.last_output = 0, time.monotonic()
        self._write_line, self._rest = write_line, b""

    def receive(self, data: bytes) -> None:
        self.last_output = time.monotonic()
        data = data.replace(HEARTBEAT, b"")
        self.received += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._write_line(line.decode(errors="replace"))

    def end(self) -> None:
        """Write the last line, which may lack its line end."""
        if self._rest:
            self._write_line(self._rest.decode(errors="replace"))
