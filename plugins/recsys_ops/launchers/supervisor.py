"""A job that outlives whoever started it: ``python -m recsys_ops.launchers.supervisor start|follow|cancel|status <name>``.

It runs on the training machine and needs nothing but the standard library. A job has a folder below TMPDIR: its output, its
process and, once it has ended, its exit code. Its supervisor and the job itself hold a lock there, which the kernel releases
however they end: a job without a lock and without an exit code was lost.
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
# `follow` says this when there is nothing to tell, so that its reader knows the connection from a silent one that is cut
ALIVE = b"\0"

_TELL_EVERY_S = 0.2
_ALIVE_EVERY_S = 2
_FORGET_AFTER_S = 86400


def start(name: str, url: str, timeout_s: int) -> int:
    """Start the job, unless it runs. Its environment is this process's and the JSON object on standard input."""
    environment = {**os.environ, **json.load(sys.stdin)}
    folder = _folder(name)
    folder.mkdir(exist_ok=True)
    lock = _take(folder)
    if lock is None:
        return 0
    _forget_old(folder.parent)
    for left in ("exit", "pid"):
        (folder / left).unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "recsys_ops.launchers.supervisor",
        "supervise",
        name,
        url,
        str(timeout_s),
    ]
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
    """Run the job to its end or the end of its time, and leave its exit code."""
    folder = _folder(name)
    _leave(folder / "pid", os.getpid())
    command = [sys.executable, "-m", "recsys_ops.worker", url]
    job = subprocess.Popen(command, close_fds=False)  # noqa: S603  the job holds the lock, too
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # who cancels means the job, and this tells how it ended
    try:
        code = job.wait(timeout_s)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
        code = TIMED_OUT
    _leave(folder / "exit", code if code >= 0 else 128 - code)
    return 0


def follow(name: str, offset: int) -> int:
    """Write the job's output from a byte on to standard output, until the job has ended."""
    folder = _folder(name)
    told = time.monotonic()
    while True:
        running = _runs(folder)
        with suppress(FileNotFoundError), (folder / "log").open("rb") as log:
            log.seek(offset)
            while said := log.read(1 << 16):
                sys.stdout.buffer.write(said)
                offset, told = offset + len(said), time.monotonic()
        if running and time.monotonic() - told > _ALIVE_EVERY_S:
            sys.stdout.buffer.write(ALIVE)
            told = time.monotonic()
        sys.stdout.buffer.flush()
        if not running:
            return 0
        time.sleep(_TELL_EVERY_S)


def status(name: str) -> int:
    """Print ``running``, the exit code of a job that has ended, or ``gone`` for one that is not there or was lost."""
    folder = _folder(name)
    if _runs(folder):
        print(RUNNING)
    else:
        ended = folder / "exit"
        print(ended.read_text() if ended.exists() else GONE)
    return 0


def cancel(name: str) -> int:
    """End the job, if it runs."""
    folder = _folder(name)
    while _runs(folder):
        with suppress(FileNotFoundError):  # it is just being started
            os.killpg(int((folder / "pid").read_text()), signal.SIGTERM)
            break
        time.sleep(0.05)
    return 0


def _folder(name: str) -> Path:
    """The job's folder, in one that nobody else may write to or read."""
    ours = Path(tempfile.gettempdir()) / f"recsys-jobs-{os.getuid()}"
    ours.mkdir(mode=0o700, exist_ok=True)
    found = ours.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        sys.exit(f"{ours} is not a folder of this user alone (mode 700): remove it")
    return ours / name


def _take(folder: Path) -> int | None:
    """The lock on a job's folder, None when the job holds it."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(10):  # a reader that looks whether the job runs holds the lock for a moment
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


def _leave(file: Path, number: int) -> None:
    """Whole, or not at all."""
    half = file.with_suffix(".half")
    half.write_text(str(number))
    half.rename(file)


def _forget_old(jobs: Path) -> None:
    """Remove what jobs that ended a day ago have left."""
    for folder in jobs.iterdir():
        with suppress(FileNotFoundError):  # another start does the same
            if not _runs(folder) and time.time() - folder.stat().st_mtime > _FORGET_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m recsys_ops.launchers.supervisor")
    commands = parser.add_subparsers(required=True)
    for act in (start, supervise, follow, status, cancel):
        command = commands.add_parser(act.__name__, help=act.__doc__)
        command.set_defaults(act=act)
        command.add_argument("name")
        if act in (start, supervise):
            command.add_argument("url")
            command.add_argument("timeout_s", type=int)
        if act is follow:
            command.add_argument("offset", type=int)
    given = vars(parser.parse_args())
    act = given.pop("act")
    return int(act(**given))


if __name__ == "__main__":
    sys.exit(main())
