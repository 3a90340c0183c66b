"""Jobs that run apart from the task that started them: beside it, or on a machine that is reached by SSH.

Either way ``recsys_ops.launchers.supervisor`` is called over there; only how it is called differs.
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
from recsys_ops.launchers.supervisor import ALIVE, TIMED_OUT
from recsys_ops.worker import EXIT_NO_RESULT

log = logging.getLogger(__name__)

# longer than `follow` is ever silent
SILENT_S = 8
_PAUSE_S = 3


class SupervisedLauncher(Launcher):
    """`patience_s` is how long the machine may be out of reach."""

    patience_s: float = 0

    @abstractmethod
    def _call(
        self, words: list[str], stdin: bytes, hear: Callable[[bytes], None]
    ) -> tuple[int, str]:
        """Run ``python -m recsys_ops.launchers.supervisor <words>`` over there; returns its exit code and what it said in error.

        Standard output goes to `hear` as it comes. Raises WorkerError when the machine is out of reach, or becomes so.
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

    def wait(self, job: Job, job_id: str, tell: Callable[[str], None]) -> None:
        lines = _Lines(tell)
        self._insist(
            lambda: self._call(["follow", job_id, str(lines.heard)], b"", lines.hear), lines
        )
        lines.end()
        match self._ask(["status", job_id]):
            case "running":
                raise WorkerError(f"the output of {job_id} ended, but the job on {self.place} runs")
            case "gone":
                raise WorkerError(
                    f"{self.place} has lost the job {job_id}: it was restarted, or the job's processes were killed; the next try "
                    "goes on from the last checkpoint"
                )
            case code if int(code) == TIMED_OUT:
                raise ModelError(
                    f"the job was ended after worker.timeout_s = {job.timeout_s} s: raise it, or use a faster machine"
                )
            case code if int(code) == EXIT_NO_RESULT:
                raise WorkerError(
                    "the worker could not reach its storage to leave a result: its last lines above say why"
                )
            case code if int(code) > 128:
                why = (
                    ", most likely because memory ran out: the lines above say how much it took"
                    if code == "137"
                    else ""
                )
                raise WorkerError(
                    f"the job on {self.place} was ended by signal {int(code) - 128}{why}"
                )

    def cancel(self, job_id: str) -> None:
        self._call(["cancel", job_id], b"", lambda said: None)

    def page(self, job_id: str) -> str | None:
        return None

    def _make_ready(self) -> None:
        """Called before each try to reach the machine."""

    def _ask(self, words: list[str], stdin: bytes = b"") -> str:
        """The last line of the answer."""
        heard = bytearray()
        self._insist(lambda: self._call(words, stdin, heard.extend))
        return bytes(heard).decode(errors="replace").strip().rpartition("\n")[2]

    def _insist(self, call: Callable[[], tuple[int, str]], lines: "_Lines | None" = None) -> None:
        """Try until the machine has been out of reach for longer than `patience_s`."""
        since = time.monotonic()
        while True:
            try:
                self._make_ready()
                code, said = call()
                break
            except WorkerError as error:
                away = time.monotonic() - max(since, lines.last if lines else since)
                if away > self.patience_s:
                    raise WorkerError(
                        f"{error}, for {away:.0f} s now; a job that still runs there is found by the next try"
                    ) from error
                log.warning("%s; trying again for %.0f s", error, self.patience_s - away)
                time.sleep(_PAUSE_S)
        if code < 0:
            raise WorkerError(f"what follows the job on {self.place} was ended by signal {-code}")
        if code != 0:
            last = said.strip().splitlines() or ["nothing"]
            raise SettingsError(
                f"{self.place} cannot run the worker (exit code {code}): {last[-1]}"
            )


class Local(SupervisedLauncher):
    """A process beside the task. It outlives the task, too: a try after a kill finds it."""

    place = "this machine"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "PYTHONPATH": str(Path(recsys_ops.__file__).parents[1])}

    def _call(
        self, words: list[str], stdin: bytes, hear: Callable[[bytes], None]
    ) -> tuple[int, str]:
        command = [sys.executable, "-m", "recsys_ops.launchers.supervisor", *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert process.stdin and process.stdout and process.stderr
        with process:
            process.stdin.write(stdin)
            process.stdin.close()
            while said := os.read(process.stdout.fileno(), 1 << 16):
                hear(said)
            errors = process.stderr.read().decode(errors="replace")
        return process.returncode, errors


class _Lines:
    """Bytes as they come in, told line by line.

    heard : how many bytes of the job's output have come
    last : when anything came, by the monotonic clock
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.heard, self.last = 0, time.monotonic()
        self._tell, self._rest = tell, b""

    def hear(self, said: bytes) -> None:
        self.last = time.monotonic()
        said = said.replace(ALIVE, b"")
        self.heard += len(said)
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._tell(line.decode(errors="replace"))

    def end(self) -> None:
        if self._rest:
            self._tell(self._rest.decode(errors="replace"))
