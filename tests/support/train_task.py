"""The task `train` in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.jobs import DAY

Train = Callable[[], dict[str, Any]]


TASK = """
import json, logging, os, signal, sys
from datetime import date
from recsys_ops.operators.train_on_worker import TrainOnWorkerOperator
from recsys_ops.settings import load_settings
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
task = TrainOnWorkerOperator(task_id="train")
signal.signal(signal.SIGTERM, lambda *_: task.on_kill())  # as Airflow's task process does
print(json.dumps(task.run(date.fromisoformat(sys.argv[1]), load_settings(), {})))
"""


class Task:
    """The process of the task.

    log : what it has logged so far
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TASK, str(DAY)],
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ},
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def figures(self) -> dict[str, Any]:
        """The figures of the task, which must have succeeded."""
        output, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, self.log
        return json.loads(output.splitlines()[-1])  # Airflow writes its log there, too
