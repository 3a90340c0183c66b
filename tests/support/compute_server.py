"""A local server with the part of Compute Engine's REST API that starts and stops an instance.

The instance goes through Google's states while an operation runs. Requests need the token of
`google_identity`.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support import google_identity

PROJECT, ZONE, INSTANCE = "shop-prod", "europe-west4-a", "shop-gpu"
ZONE_PATH = f"projects/{PROJECT}/zones/{ZONE}"
# by method: the states in which it is allowed, the state during it, the state after it
METHODS = {
    "start": ({"TERMINATED", "PROVISIONING", "STAGING", "RUNNING"}, "STAGING", "RUNNING"),
    "resume": ({"SUSPENDED"}, "STAGING", "RUNNING"),
    "stop": (
        {"PROVISIONING", "STAGING", "RUNNING", "STOPPING", "TERMINATED"},
        "STOPPING",
        "TERMINATED",
    ),
}
REASONS = {
    400: "resourceNotReady",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    429: "rateLimitExceeded",
    503: "backendError",
}


@dataclass
class Operation:
    id: int
    method: str
    since: float
    seconds: float
    failure: str | None

    def is_done(self) -> bool:
        return time.monotonic() >= self.since + self.seconds


@dataclass
class RefusedError(Exception):
    code: int
    message: str


@dataclass
class ComputeServer:
    """One instance, and what a test can change about it.

    status : the instance's state at the last request; see `state`
    endless : whether the instance has no ``maxRunDuration``
    start_s, stop_s : how long an operation takes
    permissions : of the account
    failures : codes with which the next starts fail, such as ``ZONE_RESOURCE_POOL_EXHAUSTED``
    outages : HTTP statuses of the next answers
    lost_answers : this many of the next POST requests are done but not answered
    asked : the methods that were requested and done, in order
    """

    port: int = 0
    status: str = "TERMINATED"
    endless: bool = False
    start_s: float = 0.05
    stop_s: float = 0.05
    permissions: set[str] = field(
        default_factory=lambda: (
            {f"compute.{name}" for name in ("instances.get", "instances.start", "instances.resume")}
            | {"compute.instances.stop", "compute.zoneOperations.get"}
        )
    )
    failures: list[str] = field(default_factory=list)
    outages: list[int] = field(default_factory=list)
    lost_answers: int = 0
    asked: list[str] = field(default_factory=list)
    _operations: dict[str, Operation] = field(default_factory=dict)
    _current: Operation | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def reset(self) -> None:
        """Stop the instance, forget the requests, and restore permissions and times."""
        new = ComputeServer()
        with self._lock:
            for name in ("status", "start_s", "stop_s", "permissions", "asked", "_current"):
                setattr(self, name, getattr(new, name))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> str:
        """The current state of the instance."""
        with self._lock:
            self._settle()
            return self.status

    def answer(self, method: str, path: str, query: dict[str, str]) -> Any:
        """The JSON that answers an authorised request. Raises RefusedError."""
        with self._lock:
            self._settle()
            if self.outages:
                raise RefusedError(self.outages.pop(0), "try again later")
            prefix = f"/compute/v1/{ZONE_PATH}/"
            kind, _, rest = path.removeprefix(prefix).partition("/")
            name, _, verb = rest.partition("/")
            if not path.startswith(prefix) or (kind == "instances" and name != INSTANCE):
                raise RefusedError(
                    404, f"The resource '{path.removeprefix('/compute/v1/')}' was not found"
                )
            match method, kind, verb:
                case "GET", "instances", "":
                    self._permit("compute.instances.get")
                    return self._instance()
                case "POST", "instances", "start" | "resume" | "stop":
                    self._permit(f"compute.instances.{verb}")
                    return self._operation(self._ask(verb, query["requestId"]))
                case "GET", "operations", "":
                    self._permit("compute.zoneOperations.get")
                    return self._operation(
                        next(op for op in self._operations.values() if _name(op) == name)
                    )
            raise RefusedError(404, f"no method {method} {path}")

    def _permit(self, permission: str) -> None:
        if permission not in self.permissions:
            raise RefusedError(
                403, f"Required '{permission}' permission for '{ZONE_PATH}/instances/{INSTANCE}'"
            )

    def _ask(self, method: str, request_id: str) -> Operation:
        if request_id in self._operations:
            return self._operations[request_id]
        states, during, after = METHODS[method]
        if self.status not in states:
            raise RefusedError(400, f"The resource '{ZONE_PATH}/instances/{INSTANCE}' is not ready")
        self.asked.append(method)
        failure = self.failures.pop(0) if self.failures and method != "stop" else None
        seconds = 0.0 if self.status == after else self.stop_s if method == "stop" else self.start_s
        operation = Operation(
            7_000_000_000 + len(self._operations), method, time.monotonic(), seconds, failure
        )
        self._operations[request_id] = operation
        if self.status != after:
            self._current, self.status = operation, during
        return operation

    def _settle(self) -> None:
        if self._current and self._current.is_done():
            self.status = (
                "TERMINATED" if self._current.failure else METHODS[self._current.method][2]
            )
            self._current = None

    def _instance(self) -> dict[str, Any]:
        zone = f"https://www.googleapis.com/compute/v1/{ZONE_PATH}"
        scheduling: dict[str, Any] = {
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
            "preemptible": True,
        }
        scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "STOP"}
        if not self.endless:
            scheduling["maxRunDuration"] = {"seconds": "14400"}
        return {
            "kind": "compute#instance",
            "id": "4201",
            "name": INSTANCE,
            "zone": zone,
            "machineType": f"{zone}/machineTypes/g2-standard-12",
            "status": self.status,
            "scheduling": scheduling,
            "lastStartTimestamp": "2026-05-01T02:10:00.000-07:00",
            "selfLink": f"{zone}/instances/{INSTANCE}",
        }

    def _operation(self, operation: Operation) -> dict[str, Any]:
        zone = f"https://www.googleapis.com/compute/v1/{ZONE_PATH}"
        elapsed = time.monotonic() - operation.since
        is_done = operation.is_done()
        answer: dict[str, Any] = {
            "kind": "compute#operation",
            "id": str(operation.id),
            "name": _name(operation),
            "zone": zone,
            "operationType": operation.method,
            "targetLink": f"{zone}/instances/{INSTANCE}",
            "targetId": "4201",
            "status": "DONE"
            if is_done
            else "PENDING"
            if elapsed < operation.seconds / 3
            else "RUNNING",
            "progress": 100 if is_done else 0,
            "user": google_identity.EMAIL,
            "selfLink": f"{zone}/operations/{_name(operation)}",
        }
        if is_done and operation.failure:
            message = (
                f"The zone '{ZONE_PATH}' does not have enough resources available to fulfill "
                "the request."
            )
            answer["error"] = {"errors": [{"code": operation.failure, "message": message}]}
            answer |= {"httpErrorStatusCode": 503, "httpErrorMessage": "SERVICE UNAVAILABLE"}
        return answer


def _name(operation: Operation) -> str:
    return f"operation-{operation.id}"


@contextmanager
def compute_server() -> Iterator[ComputeServer]:
    """A running server with a stopped instance."""
    compute = ComputeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if not google_identity.admits(self.headers["Authorization"]):
                message = (
                    "Request had invalid authentication credentials. Expected OAuth 2 access token."
                )
                return self._refuse(RefusedError(401, message))
            try:
                answer = compute.answer(
                    self.command,
                    url.path,
                    {key: values[0] for key, values in parse_qs(url.query).items()},
                )
            except RefusedError as refusal:
                return self._refuse(refusal)
            if self.command == "POST" and compute.lost_answers:
                compute.lost_answers -= 1
                self.close_connection = True
                return None
            return self._send(200, answer)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/token":
                return self._send(*google_identity.grant(body))
            return self.do_GET()

        def _refuse(self, refusal: RefusedError) -> None:
            reason = {
                "message": refusal.message,
                "domain": "global",
                "reason": REASONS[refusal.code],
            }
            self._send(
                refusal.code,
                {"error": {"code": refusal.code, "message": refusal.message, "errors": [reason]}},
            )

        def _send(self, status: int, answer: Any) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        compute.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield compute
        finally:
            server.shutdown()
