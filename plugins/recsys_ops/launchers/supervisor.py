"""The supervisor of a job: it starts the job, keeps its output and records how it ended.

``python -m recsys_ops.launchers.supervisor start|follow|cancel|status <name>`` runs on the job's
machine and needs only the standard library. A job has a folder below TMPDIR with its output, its
process id and, when it has ended, its exit code. The supervisor and the job hold a lock on the
folder, which the kernel releases however they end: without a lock and without an exit code, the job
was lost.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

RUNNING, GONE = "running", "gone"
TIMED_OUT = 124
# `follow` sends it while there is no output: it tells a quiet job from a dead connection
HEARTBEAT = b"\0"

_FOLLOW_EVERY_S = 0.2
_HEARTBEAT_EVERY_S = 2
_DELETE_AFTER_S = 86400


def start(name: str, url: str, timeout_s: int) -> int:
    """Start the job unless it runs. Its environment is ours and a JSON object on standard input."""
    environment = {**os.environ, **json.load(sys.stdin)}
    folder = _folder(name)
    folder.mkdir(exist_ok=True)
    lock = _lock(folder)
    if lock is None:
        return 0
    _delete_old(folder.parent)
    for leftover in ("exit", "pid"):
        (folder / leftover).unlink(missing_ok=True)
    module = "recsys_ops.launchers.supervisor"
    command = [sys.executable, "-m", module, "supervise", name, url, str(timeout_s)]
    with (folder / "log").open("wb") as log:
        subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock],
            cwd=folder,
        )
    return 0


def supervise(name: str, url: str, timeout_s: int) -> int:
    """Run the job until it ends or its time is over, and record its exit code."""
    folder = _folder(name)
    _write_number(folder / "pid", os.getpid())
    command = [sys.executable, "-m", "recsys_ops.worker", url]
    job = subprocess.Popen(command, close_fds=False)  # noqa: S603  it inherits the lock
    # SIGTERM is for the job; the supervisor survives to record the exit code
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        code = job.wait(timeout_s)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
        code = TIMED_OUT
    _write_number(folder / "exit", code if code >= 0 else 128 - code)
    return 0


def follow(name: str, offset: int) -> int:
    """Write the job's output to standard output, from a byte on, until the job has ended."""
    folder = _folder(name)
    last_write = time.monotonic()
    while True:
        running = _runs(folder)
        with suppress(FileNotFoundError), (folder / "log").open("rb") as log:
            log.seek(offset)
            while data := log.read(1 << 16):
                sys.stdout.buffer.write(data)
                offset, last_write = offset + len(data), time.monotonic()
        if running and time.monotonic() - last_write > _HEARTBEAT_EVERY_S:
            sys.stdout.buffer.write(HEARTBEAT)
            last_write = time.monotonic()
        sys.stdout.buffer.flush()
        if not running:
            return 0
        time.sleep(_FOLLOW_EVERY_S)


def status(name: str) -> int:
    """Print ``running``, or the exit code if the job has ended, or ``gone`` if it was lost."""
    folder = _folder(name)
    if _runs(folder):
        print(RUNNING)
    else:
        exit_code = folder / "exit"
        print(exit_code.read_text() if exit_code.exists() else GONE)
    return 0


def cancel(name: str) -> int:
    """End the job if it runs."""
    folder = _folder(name)
    while _runs(folder):
        with suppress(FileNotFoundError):  # the job is being started and has no pid file yet
            os.killpg(int((folder / "pid").read_text()), signal.SIGTERM)
            break
        time.sleep(0.05)
    return 0


def _folder(name: str) -> Path:
    """The job's folder, inside a folder that only this user can read and write."""
    parent = Path(tempfile.gettempdir()) / f"recsys-jobs-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    info = parent.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        sys.exit(f"{parent} is not a folder of this user alone (mode 700): remove it")
    return parent / name


def _lock(folder: Path) -> int | None:
    """Lock a job's folder; None if a job holds the lock."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(10):  # `_runs` of another process holds the lock for a moment
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.05)
    os.close(lock)
    return None


def _runs(folder: Path) -> bool:
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _write_number(file: Path, number: int) -> None:
    """Write a file atomically."""
    temporary = file.with_suffix(".half")
    temporary.write_text(str(number))
    temporary.rename(file)


def _delete_old(jobs: Path) -> None:
    """Delete the folders of jobs that ended more than a day ago."""
    for folder in jobs.iterdir():
        with suppress(FileNotFoundError):  # another `start` has deleted it
            if not _runs(folder) and time.time() - folder.stat().st_mtime > _DELETE_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m recsys_ops.launchers.supervisor")
    commands = parser.add_subparsers(required=True)
    for function in (start, supervise, follow, status, cancel):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("name")
        if function in (start, supervise):
            command.add_argument("url")
            command.add_argument("timeout_s", type=int)
        if function is follow:
            command.add_argument("offset", type=int)
    arguments = vars(parser.parse_args())
    function = arguments.pop("function")
    return int(function(**arguments))


if __name__ == "__main__":
    sys.exit(main())
