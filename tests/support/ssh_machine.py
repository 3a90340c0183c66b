"""Another machine: a network namespace with its own sshd, behind a link that can be cut."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from support.packages import install

PLUGINS = Path(__file__).parents[2] / "plugins"
_numbers = count(1)


@dataclass
class Machine:
    """A machine with its own processes and address; the file system is this machine's.

    python : the Python in which the package is installed
    """

    folder: Path
    number: int
    sshd: str
    python: str = sys.executable
    _sshd: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return self._address(2)

    def _address(self, place: int) -> str:
        """An address in a network of four, which no other run of the tests uses."""
        block = (os.getpid() * 61 + self.number) % 16384
        return f"10.213.{block // 64}.{block % 64 * 4 + place}"

    @property
    def namespace(self) -> str:
        return f"recsys-{os.getpid()}-{self.number}"

    @property
    def _link(self) -> str:
        return f"rs{os.getpid() % 100000}-{self.number}"

    @property
    def _user(self) -> str:
        return getpass.getuser()

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def connection(self, **extra: Any) -> str:
        """The Airflow connection of this machine.

        extra : replaces its extras; an extra of None is left out
        """
        default = {"private_key": (self.folder / "key").read_text(), "host_key": self.host_key}
        extras = {name: value for name, value in {**default, **extra}.items() if value is not None}
        return json.dumps(
            {
                "conn_type": "ssh",
                "host": self.host,
                "port": 22,
                "login": self._user,
                "extra": extras,
            }
        )

    def cut(self) -> None:
        _run("ip", "link", "set", self._link, "down")

    def mend(self) -> None:
        _run("ip", "link", "set", self._link, "up")

    def pids(self, containing: str = "") -> list[int]:
        """The processes of the machine that have `containing` in their command line."""
        pids = [int(pid) for pid in _run("ip", "netns", "pids", self.namespace).split()]
        return [pid for pid in pids if containing in _command(pid)]

    def workers(self) -> list[int]:
        """The training processes."""
        return self.pids("-m recsys_ops.worker file:") + self.pids("-m recsys_ops.worker abfs:")

    def hang_up(self) -> None:
        """Break every connection, as a proxy might."""
        for pid in self.pids(f"sshd: {self._user}"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def power_off(self) -> None:
        """Kill all processes and empty the temporary folder."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self._sshd:
            self._sshd.wait()
        shutil.rmtree(self.folder / "tmp")

    def power_on(self) -> None:
        (self.folder / "tmp").mkdir()
        command = ["ip", "netns", "exec", self.namespace, self.sshd, "-D", "-e", "-f"]
        with (self.folder / "sshd.log").open("ab") as log:
            self._sshd = subprocess.Popen(
                [*command, str(self.folder / "sshd_config")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((self.host, 22), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "sshd.log").read_text()
                time.sleep(0.05)


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A running machine. Raises RuntimeError if there can be none here."""
    if os.getuid() != 0:
        raise RuntimeError("a network namespace with an sshd needs root")
    sshd, ip = install("sshd", "openssh-server", "openssh-client"), install("ip", "iproute2")
    if not (sshd and ip):
        raise RuntimeError("sshd or ip is missing and could not be installed")
    for name in ("key", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    Path("/run/sshd").mkdir(exist_ok=True)
    new = Machine(folder, next(_numbers), sshd)
    (folder / "sshd_config").write_text(
        f"""
ListenAddress {new.host}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PYTHONPATH={PLUGINS} TMPDIR={folder}/tmp
"""
    )
    inside = ("ip", "-n", new.namespace)
    _run("ip", "netns", "add", new.namespace)
    try:
        _run(
            "ip",
            "link",
            "add",
            new._link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            new.namespace,
        )
        _run("ip", "address", "add", f"{new._address(1)}/30", "dev", new._link)
        _run(*inside, "address", "add", f"{new.host}/30", "dev", "eth0")
        for words in (("lo",), ("eth0",)):
            _run(*inside, "link", "set", *words, "up")
        new.mend()
        new.power_on()
        yield new
        new.power_off()
    finally:
        _run("ip", "netns", "delete", new.namespace)


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)}: {error.stderr.strip()}") from error


def _command(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return ""
