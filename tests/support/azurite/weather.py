"""A proxy in front of a blob store that breaks some requests as networks and busy stores do."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Weather = Literal["busy", "throttled", "cut before", "cut after", "cut within", "slow"]


@contextmanager
def weather(endpoint: str, kind: Weather, every: int, seconds: float = 0.1) -> Iterator[str]:
    """The URL of a proxy of `endpoint` that disturbs one of every this many requests.

    Parameters
    ----------
    kind : ``busy`` and ``throttled``: the answer is 503 or 429. ``cut before``: the connection ends
        before the store gets the request. ``cut after``: the store has done it, the answer is lost.
        ``cut within``: half of the answer's body arrives. ``slow``: the request waits.
    every : which requests are disturbed: the n-th, 2 n-th, …
    seconds : how long a slow request waits
    """
    target = urlsplit(endpoint)
    lock, requests = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self._body()
            with lock:
                requests[0] += 1
                met = kind if requests[0] % every == 0 else None
            if met in ("busy", "throttled"):
                self._answer(503 if met == "busy" else 429, {"Retry-After": "1"}, b"")
                return
            if met == "slow":
                time.sleep(seconds)
            if met == "cut before":
                self._cut()
                return
            status, headers, answer = self._forward(body)
            if met == "cut after":
                self._cut()
            else:
                self._answer(status, headers, answer, half=met == "cut within" and len(answer) > 1)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
            skipped = ("transfer-encoding", "connection")
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in skipped
            }
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            skipped = ("transfer-encoding", "connection", "keep-alive", "date", "server")
            return (
                answer.status,
                {n: v for n, v in answer.getheaders() if n.lower() not in skipped},
                content,
            )

        def _answer(
            self, status: int, headers: dict[str, str], body: bytes, *, half: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD" and status not in (204, 304):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if half else body)
            if half:
                self._cut()

        def _cut(self) -> None:
            self.wfile.flush()
            self.close_connection = True

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{target.path}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
