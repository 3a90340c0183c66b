"""Says what a long command does now and for how long.

``python -m recsys_ops.demo.progress TEXT COMMAND…`` runs a command as one stage. It needs nothing
but Python, because the Makefile runs it while it installs the packages.
"""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Writes one line for each stage, with the time since the start.

    On a terminal the line of the running stage is updated every half second. Elsewhere each stage
    writes a line at its start, one at its end, and one every `every` seconds between.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 15) -> None:
        self.stream = stream or sys.stdout
        self.every = 0.5 if self.stream.isatty() else every
        self.started = time.monotonic()

    @contextmanager
    def stage(self, text: str) -> Iterator["Stage"]:
        """Report `text` while the body runs, and whether it succeeded."""
        stage = Stage(text)
        self._write(f"{text} …", last=False)
        ended = threading.Event()
        ticker = threading.Thread(target=self._repeat, args=(stage, ended), daemon=True)
        ticker.start()
        outcome = "failed"
        try:
            yield stage
            outcome = "done"
        finally:
            ended.set()
            ticker.join()
            self._write(f"{text}: {stage.result or outcome} ({stage.seconds:.0f} s)", last=True)

    def _repeat(self, stage: "Stage", ended: threading.Event) -> None:
        while not ended.wait(self.every):
            detail = f": {stage.detail}" if stage.detail else " …"
            self._write(f"{stage.text}{detail} ({stage.seconds:.0f} s)", last=False)

    def _write(self, line: str, *, last: bool) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        line = f"{minutes:3d}:{seconds:02d}  {line}"
        if self.stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            line = f"\r\x1b[K{line if last else line[:width]}"
        self.stream.write(line + ("\n" if last or not self.stream.isatty() else ""))
        self.stream.flush()


class Stage:
    """A running stage. `detail` says what it does now, `result` what it did; both may be set."""

    def __init__(self, text: str) -> None:
        self.text, self.detail, self.result = text, "", ""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def update(self, detail: str) -> None:
        self.detail = detail


def main(text: str, *command: str) -> int:
    """Run the command as one stage; returns its exit status."""
    with Progress().stage(text) as stage:
        status = subprocess.run(command, check=False).returncode  # noqa: S603
        stage.result = "" if status == 0 else f"failed with exit status {status}"
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
