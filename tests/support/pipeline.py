"""The pipeline of a small shop: run its tasks one by one, kill them, compare the stores."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import redis

from recsys_ops.history.table import current_version, read_events
from recsys_ops.ingest.steps import STEPS
from recsys_ops.serving.layout import lock_key
from recsys_ops.settings import ServingSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

INGEST = ("extract_delta", *STEPS, "commit_history")
RETRAIN = ("extract_catalogue", "build_matrix", "train", "evaluate", "gate", "refresh_redis")

State = dict[str, Any]
# does something to a task that has begun; gets its process id and a test whether it has ended
Disturbance = Callable[[int, Callable[[], bool]], None]


@dataclass(frozen=True)
class Outcome:
    """How a task ended, and how many seconds after it began: with figures, an error, or killed."""

    killed: bool
    seconds: float
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The stores at one moment: a copy of the blob folder, and Redis' keys as DUMP returns them."""

    blob: Path
    redis: Mapping[bytes, bytes]


class Runner:
    """The process of run_task.py, which runs one task at a time."""

    def __init__(self, home: Path) -> None:
        self._home, self._numbers = home, count()
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": str(Path(__file__).parents[2] / "plugins"),
            "PYTHONWARNINGS": "ignore",
            # neither BLAS nor the allocator of Polars starts threads when it is imported
            "OPENBLAS_NUM_THREADS": "1",
            "_RJEM_MALLOC_CONF": "background_thread:false",
        }
        command = [sys.executable, str(Path(__file__).with_name("run_task.py"))]
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def call(self, task_id: str, disturb: Disturbance, **call: Any) -> Outcome:
        """Run a task until it ends or `disturb` kills it; `call` is what run_task.py reads."""
        folder = self._home / "runs" / f"{next(self._numbers)}-{task_id}"
        folder.mkdir(parents=True)
        self._process.stdin.write(
            json.dumps({"task_id": task_id, "folder": str(folder), **call}) + "\n"
        )
        word, number = self._answer()
        begun = time.monotonic()
        if word == "started":
            disturb(number, (folder / "outcome.json").exists)
            word, number = self._answer()
        assert word == "ended"
        seconds = time.monotonic() - begun
        if number == -signal.SIGKILL:
            return Outcome(True, seconds)
        return Outcome(False, seconds, **json.loads((folder / "outcome.json").read_text()))

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)

    def _answer(self) -> tuple[str, int]:
        line = self._process.stdout.readline().split()
        assert line, "run_task.py has ended"
        return line[0], int(line[1])


class Pipeline:
    """The tasks of one shop.

    Parameters
    ----------
    folder : holds the storage unless `storage` is given
    env : settings and connections of the tasks
    """

    def __init__(
        self,
        runner: Runner,
        folder: Path,
        client: redis.Redis,
        env: Mapping[str, str],
        storage: Storage | None = None,
    ) -> None:
        self.folder, self.redis = folder, client
        self.storage = storage or Storage(f"file://{folder}")
        self._runner, self._env, self._groups = (
            runner,
            {**env, "RECSYS_STORAGE__ROOT": self.storage.root},
            [],
        )

    def run(
        self,
        task_id: str,
        day: date,
        *,
        disturb: Disturbance | None = None,
        max_file_bytes: int | None = None,
        env: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        run_id: str = "scheduled__day",
        run_type: str = "scheduled",
    ) -> Outcome:
        """Run one task of the run of `day`.

        max_file_bytes : the disk is full when a file reaches this size
        """
        begins = datetime(day.year, day.month, day.day, 2, tzinfo=UTC) + timedelta(days=1)
        run = {
            "run_id": run_id,
            "run_type": run_type,
            "logical_date": begins.isoformat(),
            "run_after": begins.isoformat(),
            "params": dict(params or {}),
        }

        def begun(pid: int, over: Callable[[], bool]) -> None:
            self._groups.append(pid)
            if disturb is not None:
                disturb(pid, over)

        dag_id = "recsys_ingest" if task_id in INGEST else "recsys_retrain"
        full_env = {**self._env, **(env or {})}
        outcome = self._runner.call(
            task_id, begun, dag_id=dag_id, run=run, env=full_env, max_file_bytes=max_file_bytes
        )
        if outcome.killed:
            # it ends by itself 10 s after a kill; the tests do not wait for that
            self.redis.delete(lock_key(ServingSettings()))
        return outcome

    def kill(
        self, task_id: str, day: date, seconds: float, *, before: Snapshot | None = None, **run: Any
    ) -> Outcome:
        """Kill a task so long after it began; sooner, after `before` is restored, where it ended.

        So the kill comes on a busy machine and on an idle one, whatever `seconds` was measured on.
        """
        while True:
            outcome = self.run(task_id, day, disturb=killed_after(seconds), **run)
            if outcome.killed or outcome.error:
                return outcome
            seconds /= 2
            if before:
                self.restore(before)

    def succeed(self, tasks: tuple[str, ...], day: date, **run: Any) -> Outcome:
        """Run the tasks in order; all must succeed. Returns the last one's outcome."""
        for task_id in tasks:
            outcome = self.run(task_id, day, **run)
            assert outcome.error is None, f"{task_id}: {outcome.error} {outcome.message}"
        return outcome

    def state(self) -> State:
        """What must not change: objects byte for byte, history and Redis by content.

        Left out are reports, the worker's result and log, and a manifest's "run": they hold times.
        """
        self._wait_for_orphans()
        objects = {
            path: re.sub(rb'\n  "run": {.*?\n  }', b"", self.storage.get(path), flags=re.S)
            for path in self.storage.list("")
            if not path.startswith((paths.HISTORY, "reports/"))
            and not path.endswith(("/result.json", "/worker.log"))
        }
        return {**objects, **self.history(), **self.served()}

    def history(self) -> State:
        """The rows of each day in history."""
        if not self.storage.list(f"{paths.HISTORY}/_delta_log"):
            return {}
        frame = read_events(self.storage, date.min, date.max, version=current_version(self.storage))
        return {
            f"history {day[0]}": rows.sort(rows.columns).rows()
            for day, rows in frame.partition_by("day", as_dict=True).items()
        }

    def served(self) -> State:
        """All keys of Redis, also the staged and the previous ones."""
        keys = sorted(self.redis.scan_iter(count=1000, _type="hash"))
        pipe = self.redis.pipeline()
        for key in keys:
            pipe.hgetall(key)
        return dict(zip((f"redis {key.decode()}" for key in keys), pipe.execute(), strict=True))

    def live(self) -> State:
        """What readers of Redis get."""
        return {key: content for key, content in self.served().items() if key.endswith("}")}

    def mark(self, path: Path) -> Any:
        """A value that changes when an object below a path, or in its folder, is written."""
        if self.storage.root.startswith("file:"):
            return file_mark(self.folder / path)
        return self.storage.write_times(str(path if path.suffix == "" else path.parent))

    def snapshot(self, folder: Path) -> Snapshot:
        self._wait_for_orphans()
        shutil.copytree(self.folder, folder)
        keys = list(self.redis.scan_iter(count=1000, _type="hash"))
        pipe = self.redis.pipeline()
        for key in keys:
            pipe.dump(key)
        return Snapshot(folder, dict(zip(keys, pipe.execute(), strict=True)))

    def restore(self, snapshot: Snapshot) -> None:
        self._wait_for_orphans()
        if self.storage.root.startswith("file:"):
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(snapshot.blob, self.folder)
        else:
            for path in self.storage.list(""):
                self.storage.delete(path)
            # a lock file is of no use there
            for file in [file for file in files(snapshot.blob) if "#" not in file.name]:
                self.storage.put(str(file), snapshot.blob / file)
        self.redis.flushall()
        pipe = self.redis.pipeline()
        for key, dumped in snapshot.redis.items():
            pipe.restore(key, 0, dumped)
        pipe.execute()

    def _wait_for_orphans(self) -> None:
        """Wait for the processes of killed tasks; a worker outlives its task on purpose."""
        while any(_alive(group) for group in self._groups) or workers(self.storage):
            time.sleep(0.05)
        self._groups.clear()


def differing(actual: State, expected: State) -> list[str]:
    """The names of what differs between two states."""
    return sorted(
        name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name)
    )


def killed_after(seconds: float) -> Disturbance:
    """Send SIGKILL to the task and its subprocesses so long after it began."""

    def disturb(pid: int, over: Callable[[], bool]) -> None:
        time.sleep(seconds)
        _kill(pid)

    return disturb


def killed_when(mark: Callable[[], Any], *, alone: bool = False) -> Disturbance:
    """Send SIGKILL to the task and its subprocesses as soon as `mark` returns a new value.

    alone : spare the subprocesses
    """
    before = mark()

    def disturb(pid: int, over: Callable[[], bool]) -> None:
        while mark() == before and not over():
            time.sleep(0.0002)  # the task needs the processor, too
        if alone:
            os.kill(pid, signal.SIGKILL)
        else:
            _kill(pid)

    return disturb


def workers(storage: Storage) -> list[int]:
    """The processes that train for this storage."""
    pids = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if f"\0recsys_ops.worker\0{storage.root}/".encode() in process.read_bytes():
                pids.append(int(process.parent.name))
    return pids


def worker_killed(storage: Storage) -> Disturbance:
    """Send SIGKILL to the worker, as the kernel does when memory is short."""

    def disturb(pid: int, over: Callable[[], bool]) -> None:
        while not over():
            for worker in workers(storage):
                os.kill(worker, signal.SIGKILL)
                return

    return disturb


def file_mark(path: Path) -> tuple[int, int]:
    """A value that changes when a file is replaced or a folder gets a new entry."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_ino, stat.st_mtime_ns


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file below a folder with its mark."""
    return {
        path.relative_to(folder): file_mark(path) for path in folder.rglob("*") if path.is_file()
    }


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended


def _alive(group: int) -> bool:
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(path.read_text().rpartition(") ")[2].split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return any(int(of_group) == group and state != "Z" for state, _, of_group, *_ in stats)
