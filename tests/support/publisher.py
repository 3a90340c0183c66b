"""A process that refreshes Redis or rolls back, as Airflow's tasks do, when it is told to.

It reads calls, one a line, as JSON: ``{"task": "refresh_redis" or "rollback", "day": …, "params":
…}``. It prints ``ready`` after its imports, ``begun`` at each try, and at the end of a call its
figures or its last error as JSON. A task that Airflow retries is tried three times.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any


class Publisher:
    """A running process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert self._answer() == "ready"

    def begin(self, task: str, day: date, **params: str) -> None:
        call = json.dumps({"task": task, "day": str(day), "params": params})
        self.process.stdin.write(f"{call}\n")
        self.process.stdin.flush()
        assert self._answer() == "begun"

    def end(self) -> dict[str, Any]:
        """The figures of the task."""
        while (answer := self._answer()) == "begun":
            pass
        figures = json.loads(answer)
        assert "error" not in figures, figures
        return figures

    def _answer(self) -> str:
        return self.process.stdout.readline().strip()


@contextmanager
def publisher(environment: Mapping[str, str]) -> Iterator[Publisher]:
    process = subprocess.Popen(
        [sys.executable, "-m", "support.publisher"],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Publisher(process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def main() -> None:
    import polars  # noqa: F401

    from recsys_ops.operators.refresh_redis import RefreshRedisOperator
    from recsys_ops.operators.rollback import RollbackOperator
    from recsys_ops.run_day import day_start
    from recsys_ops.serving import rollback  # noqa: F401

    operators = {"refresh_redis": RefreshRedisOperator, "rollback": RollbackOperator}
    answers = os.fdopen(os.dup(1), "w")  # Airflow logs to standard output
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        after = day_start(date.fromisoformat(call["day"]) + timedelta(days=2))
        context = {
            "dag_run": SimpleNamespace(
                run_id="manual__now",
                run_type="manual",
                logical_date=None,
                run_after=after,
                triggering_user_name="ann",
            ),
            "params": call["params"],
        }
        for _ in range(3):
            print("begun", file=answers, flush=True)
            try:
                operator = operators[call["task"]](task_id=call["task"], day=call["day"])
                answer = operator.execute(context)
                break
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
