"""Azurite, the emulator of Azure's blob storage, from npm; Node is a Python package."""

import base64
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from azure.storage.blob import BlobServiceClient, generate_container_sas
from support.packages import NODE, npm_install

from recsys_ops.demo import services

HERE = Path(__file__).parent
ACCOUNT = "recsysshop"
_numbers = count()


@dataclass(frozen=True)
class Azurite:
    """A running server: `url` is the server's, `endpoint` the account's.

    Delta's log needs a listing that starts from a name, which Azurite does not have. The library
    object_store makes up for that where it knows that it speaks with the emulator; it takes the
    emulator's URL from ``AZURITE_BLOB_STORAGE_URL`` alone.
    """

    url: str
    key: str

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{ACCOUNT}"

    @property
    def options(self) -> dict[str, str]:
        return {"account_name": ACCOUNT, "account_key": self.key, "use_emulator": "true"}

    def container(self) -> str:
        """The URL of a fresh, empty container."""
        name = f"test-{next(_numbers)}"
        with BlobServiceClient(self.endpoint, credential=self.key) as client:
            client.create_container(name)
        return f"abfs://{name}"

    def sas(self, container: str, rights: str = "rwdl") -> str:
        """A shared access signature for an hour, with these rights to the container of this URL."""
        expiry = datetime.now(UTC) + timedelta(hours=1)
        name = container.removeprefix("abfs://")
        return generate_container_sas(
            ACCOUNT, name, account_key=self.key, permission=rights, expiry=expiry
        )


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """A server on a free port until the block ends; its log is in the folder."""
    main = npm_install(HERE) / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    port, key = services.free_port(), base64.b64encode(secrets.token_bytes(64)).decode()
    options = [
        "--inMemoryPersistence",
        "--loose",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--silent",
    ]
    with (folder / "azurite.log").open("w") as log:
        server = subprocess.Popen(
            [NODE, main, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options],
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"},
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        _wait(folder / "azurite.log", server)
        os.environ["AZURITE_BLOB_STORAGE_URL"] = f"http://127.0.0.1:{port}"
        yield Azurite(f"http://127.0.0.1:{port}", key)
    finally:
        server.terminate()
        server.wait(10)


def _wait(log: Path, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while "successfully listens" not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
