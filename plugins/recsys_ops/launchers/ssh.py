"""Jobs on a machine that is reached by SSH; a machine on Compute Engine is started first."""

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
_ADD_KEY = "put its key into extra host_key (ssh-keyscan; compare it with the machine's console)"


class Ssh(SupervisedLauncher):
    """Runs jobs on the machine of an Airflow connection of type ssh.

    The machine's host key must be the connection's or in known_hosts.

    Raises SettingsError if the connection cannot be used.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        from airflow.providers.ssh.hooks.ssh import SSHHook

        # paramiko logs errors that we raise and report ourselves
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
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
        except Exception as error:  # the type depends on what is wrong with the connection
            raise SettingsError(
                f"the connection {settings.ssh.conn_id} cannot be used: {error}"
            ) from error
        if self._hook.allow_host_key_change:
            raise SettingsError(
                f"connection {settings.ssh.conn_id}: with allow_host_key_change anybody can pose "
                "as the machine; remove it"
            )
        self.place = f"{self._hook.remote_host}:{self._hook.port}"

    def cancel(self, job_id: str) -> None:
        # Airflow kills the task soon: neither an open connection nor a dead machine may delay us
        self._hang_up()
        self._hook.conn_timeout = _CANCEL_S
        super().cancel(job_id)

    def page(self, job_id: str) -> str | None:
        machine = self._settings.gce
        if machine is None:
            return None
        path = f"compute/instancesDetail/zones/{machine.zone}/instances/{machine.instance}"
        return f"https://console.cloud.google.com/{path}?project={machine.project}"

    def _make_ready(self) -> None:
        """Start the machine on Compute Engine, if it is one.

        This is quick if it runs; a spot machine may have been preempted since the last call.
        """
        if self._settings.gce and self._hook.client is None:
            start_machine(self._settings.gce, self._settings.google_conn_id)

    def _call(
        self, arguments: list[str], stdin: bytes, receive: Callable[[bytes], None]
    ) -> tuple[int, str]:
        import paramiko

        module = "recsys_ops.launchers.supervisor"
        command = shlex.join([self._settings.ssh.python, "-m", module, *arguments])
        try:
            transport = self._connect().get_transport()
            assert transport is not None
            with transport.open_session(timeout=_CONNECT_S) as channel:
                channel.settimeout(SILENT_S)
                channel.exec_command(command)
                channel.sendall(stdin)
                channel.shutdown_write()
                while data := channel.recv(1 << 16):
                    receive(data)
                errors = channel.makefile_stderr().read().decode(errors="replace")
                code = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._hang_up()
            reason = str(error) or type(error).__name__
            raise WorkerError(f"{self.place} does not answer ({reason})") from error
        if code == -1:
            self._hang_up()
            raise WorkerError(f"{self.place} has closed the connection")
        return code, errors

    def _connect(self) -> "paramiko.SSHClient":
        """A connected client.

        Raises SettingsError if the machine's key is unknown or wrong, or if it refuses our login.
        """
        import paramiko

        conn_id = self._settings.ssh.conn_id
        try:
            client = self._hook.get_conn()
        except paramiko.BadHostKeyException as error:
            raise SettingsError(
                f"{self.place} shows another host key than connection {conn_id} or known_hosts "
                "has: another machine may pose as it. If the machine was installed anew, "
                f"{_ADD_KEY}"
            ) from error
        except paramiko.AuthenticationException as error:
            is_refusal = isinstance(error, paramiko.BadAuthenticationType)
            if not is_refusal and "Authentication failed" not in str(error):
                raise  # the connection broke during the login
            raise SettingsError(
                f"{self.place} refuses user {self._hook.username} ({error}): "
                f"check login and extra private_key of connection {conn_id}"
            ) from error
        except paramiko.SSHException as error:
            if "known_hosts" not in str(error):
                raise
            raise SettingsError(
                f"the host key of {self.place} is not known: for connection {conn_id} {_ADD_KEY}"
            ) from error
        _close_when_silent(client)
        return client

    def _hang_up(self) -> None:
        self._hook.client = None
        self._hook.__dict__.pop("host_proxy", None)  # the hook caches it, but it works only once


def _close_when_silent(client: "paramiko.SSHClient") -> None:
    """Let the kernel close the connection if the other end does not acknowledge our data.

    It works whatever paramiko waits for, but not through a proxy, which has its own time limits.
    """
    transport = client.get_transport()
    if (
        transport
        and isinstance(transport.sock, socket.socket)
        and hasattr(socket, "TCP_USER_TIMEOUT")
    ):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
