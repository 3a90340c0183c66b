"""Jobs on a machine that is reached by SSH; on Compute Engine it is started first."""

import logging
import shlex
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from recsys_ops.errors import SettingsError, WorkerError
from recsys_ops.launchers.gce import start_machine
from recsys_ops.launchers.supervised import SILENT_S, SupervisedLauncher
from recsys_ops.settings import WorkerSettings

if TYPE_CHECKING:
    import paramiko

_CONNECT_S = 10
_CANCEL_S = 3
_KEY = (
    "put its key into extra host_key (ssh-keyscan, compared with what the machine's console shows)"
)


class Ssh(SupervisedLauncher):
    """The machine of an Airflow connection of type ssh, its host key checked against the connection or known_hosts."""

    def __init__(self, settings: WorkerSettings) -> None:
        from airflow.providers.ssh.hooks.ssh import SSHHook

        logging.getLogger("paramiko").setLevel(
            logging.CRITICAL
        )  # what goes wrong is raised, and said once
        self._settings, self.patience_s = settings, settings.ssh.lost_after_s
        try:
            self._hook = SSHHook(
                settings.ssh.conn_id,
                conn_timeout=_CONNECT_S,
                banner_timeout=_CONNECT_S,
                auth_timeout=_CONNECT_S,
                conn_retry_attempts=1,
                keepalive_interval=2,
                no_host_key_check=False,
            )
        except Exception as error:  # each fault of a connection raises something else
            raise SettingsError(
                f"the connection {settings.ssh.conn_id} cannot be used: {error}"
            ) from error
        if self._hook.allow_host_key_change:
            raise SettingsError(
                f"connection {settings.ssh.conn_id}: allow_host_key_change lets anybody pose as the machine; remove it"
            )
        self.place = f"{self._hook.remote_host}:{self._hook.port}"

    def _make_ready(self) -> None:
        """Start the machine on Compute Engine, which is quick where it runs; a spot machine may have been taken since."""
        if self._settings.gce and self._hook.client is None:
            start_machine(self._settings.gce, self._settings.google_conn_id)

    def cancel(self, job_id: str) -> None:
        self._hang_up()  # what the present connection is in the middle of must not delay this,
        self._hook.conn_timeout = (
            _CANCEL_S  # nor may a machine that is away: Airflow kills the task soon
        )
        super().cancel(job_id)

    def page(self, job_id: str) -> str | None:
        machine = self._settings.gce
        if machine is None:
            return None
        where = f"compute/instancesDetail/zones/{machine.zone}/instances/{machine.instance}"
        return f"https://console.cloud.google.com/{where}?project={machine.project}"

    def _call(
        self, words: list[str], stdin: bytes, hear: Callable[[bytes], None]
    ) -> tuple[int, str]:
        import paramiko

        command = shlex.join(
            [self._settings.ssh.python, "-m", "recsys_ops.launchers.supervisor", *words]
        )
        try:
            transport = self._connected().get_transport()
            assert transport is not None
            with transport.open_session(timeout=_CONNECT_S) as channel:
                channel.settimeout(SILENT_S)
                channel.exec_command(command)
                channel.sendall(stdin)
                channel.shutdown_write()
                while said := channel.recv(1 << 16):
                    hear(said)
                errors = channel.makefile_stderr().read().decode(errors="replace")
                code = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._hang_up()
            raise WorkerError(f"{self.place} does not answer ({_reason(error)})") from error
        if code == -1:
            self._hang_up()
            raise WorkerError(f"{self.place} has closed the connection")
        return code, errors

    def _connected(self) -> "paramiko.SSHClient":
        """Raises SettingsError for who is not the machine we know, or does not know us."""
        import paramiko

        conn_id = self._settings.ssh.conn_id
        try:
            client = self._hook.get_conn()
        except paramiko.BadHostKeyException as error:
            raise SettingsError(
                f"{self.place} shows another host key than connection {conn_id} or known_hosts has: somebody may pose as it. "
                f"If it was installed anew, {_KEY}"
            ) from error
        except paramiko.AuthenticationException as error:
            if not isinstance(
                error, paramiko.BadAuthenticationType
            ) and "Authentication failed" not in str(error):
                raise  # the connection broke in the middle of it
            who = f"{self._hook.username} ({error}): check login and extra private_key of connection {conn_id}"
            raise SettingsError(f"{self.place} refuses user {who}") from error
        except paramiko.SSHException as error:
            if "known_hosts" not in str(error):
                raise
            raise SettingsError(
                f"the host key of {self.place} is not known: for connection {conn_id} {_KEY}"
            ) from error
        _give_up_after_silence(client)
        return client

    def _hang_up(self) -> None:
        self._hook.client = None
        self._hook.__dict__.pop("host_proxy", None)  # cached, and of no use a second time


def _give_up_after_silence(client: "paramiko.SSHClient") -> None:
    """Have the kernel end a connection whose other end is silent, whatever paramiko is waiting for; a proxy has its own ways."""
    transport = client.get_transport()
    if (
        transport
        and isinstance(transport.sock, socket.socket)
        and hasattr(socket, "TCP_USER_TIMEOUT")
    ):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
