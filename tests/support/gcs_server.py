"""A local server with the part of Google Cloud Storage's XML API that object_store uses.

It has one bucket, which is empty at first.
"""

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography.hazmat.primitives import serialization
from google.auth import jwt

from recsys_ops.storage.objects import Storage
from support.google_identity import identity

BUCKET = "shop-staging"
PAGE = 10
_NOW = datetime(2026, 3, 11, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Gcs:
    """A running server.

    objects : the complete objects of the bucket, by name; unfinished uploads are not among them
    """

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)

    def key(self, url: str | None = None) -> str:
        """The key file of a service account that may use the bucket, at this server or at `url`."""
        return json.dumps(
            {**identity(urlsplit(self.url).port or 0), "gcs_base_url": url or self.url}
        )

    def storage(self, prefix: str = "recsys") -> Storage:
        return Storage(f"gs://{BUCKET}/{prefix}", {"service_account_key": self.key()})


@contextmanager
def gcs() -> Iterator[Gcs]:
    """Run a server on a free port until the block ends."""
    objects: dict[str, bytes] = {}
    uploads: dict[str, dict[int, bytes]] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self) -> None:
            url = urlsplit(self.path)
            bucket, _, name = unquote(url.path).lstrip("/").partition("/")
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                if not _is_signed(self.headers.get("Authorization")):
                    self._error(401, "AuthenticationRequired", "Authentication required.")
                elif bucket != BUCKET:
                    self._error(404, "NoSuchBucket", "The specified bucket does not exist.")
                elif self.command in ("GET", "HEAD"):
                    self._read(name) if name else self._list(query)
                else:
                    self._write(name, query, body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do  # noqa: N815

        def _read(self, name: str) -> None:
            if name not in objects:
                return self._error(404, "NoSuchKey", "The specified key does not exist.")
            data, headers = objects[name], _headers(objects[name])
            wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if wanted is None:
                return self._answer(200, data, headers)
            first = int(wanted[1]) if wanted[1] else len(data) - int(wanted[2])
            part = data[first : int(wanted[2]) + 1 if wanted[1] and wanted[2] else None]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            self._answer(206, part, headers)

        def _list(self, query: dict[str, str]) -> None:
            after = query.get("continuation-token", query.get("start-after", ""))
            names = sorted(
                name
                for name in objects
                if name.startswith(query.get("prefix", "")) and name > after
            )
            entries = "".join(
                f"<Contents><Key>{escape(name)}</Key>"
                f"<LastModified>{_NOW:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
                f"<ETag>{_headers(objects[name])['ETag']}</ETag>"
                f"<Size>{len(objects[name])}</Size></Contents>"
                for name in names[:PAGE]
            )
            more = (
                f"<NextContinuationToken>{escape(names[PAGE - 1])}</NextContinuationToken>"
                if len(names) > PAGE
                else ""
            )
            self._answer(200, f"<ListBucketResult>{entries}{more}</ListBucketResult>".encode())

        def _write(self, name: str, query: dict[str, str], body: bytes) -> None:
            upload = query.get("uploadId")
            if "uploads" in query:
                upload = secrets.token_hex(8)
                uploads[upload] = {}
                self._answer(
                    200,
                    _xml("InitiateMultipartUploadResult", Bucket=BUCKET, Key=name, UploadId=upload),
                )
            elif upload is not None and upload not in uploads:
                self._error(404, "NoSuchUpload", "The requested upload was not found.")
            elif self.command == "PUT" and upload:
                uploads[upload][int(query["partNumber"])] = body
                self._answer(200, b"", _headers(body))
            elif self.command == "POST" and upload:
                parts = uploads.pop(upload)
                objects[name] = b"".join(
                    parts[int(number)] for number in re.findall(rb"<PartNumber>(\d+)", body)
                )
                etag = _headers(objects[name])["ETag"]
                self._answer(
                    200, _xml("CompleteMultipartUploadResult", Bucket=BUCKET, Key=name, ETag=etag)
                )
            elif self.command == "PUT":
                objects[name] = body
                self._answer(200, b"", _headers(body))
            elif upload:
                del uploads[upload]
                self._answer(204)
            elif objects.pop(name, None) is None:
                self._error(404, "NoSuchKey", "The specified key does not exist.")
            else:
                self._answer(204)

        def _error(self, status: int, code: str, message: str) -> None:
            self._answer(status, _xml("Error", Code=code, Message=message))

        def _answer(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Gcs(f"http://127.0.0.1:{server.server_port}", objects)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _is_signed(authorization: str | None) -> bool:
    """Whether the bearer token is a JWT signed with the service account's key."""
    try:
        token = (authorization or "").removeprefix("Bearer ")
        claims = jwt.decode(token, certs=_public_key())  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return bool(claims["iss"] == identity(0)["client_email"])


@cache
def _public_key() -> bytes:
    private = serialization.load_pem_private_key(identity(0)["private_key"].encode(), None)
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _headers(data: bytes) -> dict[str, str]:
    etag = md5(data, usedforsecurity=False).hexdigest()
    return {
        "ETag": f'"{etag}"',
        "Last-Modified": format_datetime(_NOW, usegmt=True),
        "Content-Type": "application/octet-stream",
    }


def _xml(kind: str, **values: str) -> bytes:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values.items())
    return f'<?xml version="1.0" encoding="UTF-8"?><{kind}>{inner}</{kind}>'.encode()
