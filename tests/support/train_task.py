"""The task `train` in its own process."""

import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.jobs import DAY

Train = Callable[[], dict[str, Any]]

# Each task is a fork of a process that has imported Airflow, which takes two seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["airflow.sdk"])


class Task:
    """The process of the task.

    log : what it has logged so far
    """

    def __init__(self, log: Path) -> None:
        self._log, self._figures = log, log.with_suffix(".json")
        log.touch()
        self.process = _processes.Process(target=_run, args=({**os.environ}, log, self._figures))
        self.process.start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def figures(self) -> dict[str, Any]:
        """The figures of the task, which must have succeeded."""
        self.process.join(120)
        assert self.process.exitcode == 0, self.log
        return json.loads(self._figures.read_text())


def _run(environment: Mapping[str, str], log: Path, figures: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
    from recsys_ops.settings import load_settings

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
    task = TrainOnWorkerOperator(task_id="train")
    signal.signal(signal.SIGTERM, lambda *_: task.on_kill())  # as Airflow's task process does
    figures.write_text(json.dumps(task.run(DAY, load_settings(), {})))
