"""A local server with the part of Vertex AI's REST API for a CustomJob.

Containers are processes. A job makes one step at each request for it: queued, pending, running, and
then the end of its process.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import recsys_ops
from support.google_identity import admits, connection, grant

PROJECT, NUMBER, REGION = "shop-prod", "412345678901", "europe-west4"
IMAGE = "europe-west4-docker.pkg.dev/shop-prod/recsys/worker:1"
SLEEPER = "europe-west4-docker.pkg.dev/shop-prod/recsys/sleeper:1"
_IMAGES = {IMAGE: [sys.executable], SLEEPER: [sys.executable, "-c", "import time; time.sleep(600)"]}

Plan = Literal["run", "queue", "pend", "preempt", "disobey"]
Answer = Literal[429, 503, "created, 503", "created, cut", 403]


@dataclass
class VertexServer:
    """What a test can change and see.

    environment : of a container, in place of its machine's own identity
    plan : what happens to a new job: it runs; it waits for ever, queued or pending; it loses its
        machine while it runs; it runs and does not end when it is cancelled
    fails : the next jobs do not run but fail with this status (``{"code": …, "message": …}``)
    waited, lasted : a new job seems to have been created, and started, this many seconds ago
    answers : the answers to the next requests to create a job; later requests succeed
    jobs : the jobs as the API shows them, by name
    bodies : the requests that created them
    processes : their containers, by name of the job
    """

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    plan: Plan = "run"
    fails: dict[str, Any] | None = None
    waited: int = 0
    lasted: int = 0
    answers: list[Answer] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def connection(self) -> str:
        return connection(urlsplit(self.url).port or 0)

    def create(self, body: bytes) -> dict[str, Any]:
        self.bodies.append(body)
        name = f"projects/{NUMBER}/locations/{REGION}/customJobs/{7_000_000_000 + len(self.jobs)}"
        created = _stamp(-self.waited)
        self.jobs[name] = {
            **json.loads(body),
            "name": name,
            "state": "JOB_STATE_QUEUED",
            "createTime": created,
        }
        return self.jobs[name]

    def step(self, name: str) -> dict[str, Any]:
        """Return the job as it is, then let it make a step."""
        job = self.jobs[name]
        before = dict(job)
        process = self.processes.get(name)
        match job["state"]:
            case "JOB_STATE_QUEUED" if self.plan != "queue":
                job["state"] = "JOB_STATE_PENDING"
            case "JOB_STATE_PENDING" if self.plan != "pend":
                self._run(job)
            case "JOB_STATE_RUNNING" if self.plan == "preempt":
                assert process is not None
                process.kill()
                process.wait()
                self._end(
                    job,
                    "FAILED",
                    {
                        "code": 14,
                        "message": "The machine of workerpool0-0 was preempted (STOCKOUT).",
                    },
                )
            case "JOB_STATE_RUNNING" if process is not None and process.poll() is not None:
                code = process.returncode if process.returncode >= 0 else 128 - process.returncode
                message = (
                    f"The replica workerpool0-0 exited with a non-zero status of {code}. "
                    "Termination reason: Error."
                )
                self._end(
                    job,
                    "FAILED" if code else "SUCCEEDED",
                    {"code": 3, "message": message} if code else None,
                )
            case "JOB_STATE_CANCELLING":
                self._end(job, "CANCELLED", {"code": 1, "message": "CANCELED"})
        return before

    def cancel(self, name: str) -> None:
        if (process := self.processes.get(name)) and self.plan != "disobey":
            process.terminate()
            process.wait()
        self.jobs[name]["state"] = "JOB_STATE_CANCELLING"

    def _run(self, job: dict[str, Any]) -> None:
        pool = job["jobSpec"]["workerPoolSpecs"][0]
        container = pool["containerSpec"]
        if container["imageUri"] not in _IMAGES:
            self._end(
                job,
                "FAILED",
                {"code": 5, "message": f"Image {container['imageUri']} is not found."},
            )
            return
        job |= {"state": "JOB_STATE_RUNNING", "startTime": _stamp(-self.lasted)}
        if self.fails:
            self._end(job, "FAILED", self.fails)
            return
        assert container["command"][0] == "python3"
        plugins = str(Path(recsys_ops.__file__).parents[1])
        self.processes[job["name"]] = subprocess.Popen(
            [*_IMAGES[container["imageUri"]], *container["command"][1:], *container["args"]],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": plugins, **self.environment},
            stderr=subprocess.DEVNULL,
        )

    def _end(self, job: dict[str, Any], state: str, error: dict[str, Any] | None) -> None:
        job |= {"state": f"JOB_STATE_{state}", "endTime": _stamp()}
        if error:
            job["error"] = error


@contextmanager
def vertex() -> Iterator[VertexServer]:
    """Run a server on a free port until the block ends; then its processes are killed."""
    jobs = f"/v1/projects/{PROJECT}/locations/{REGION}/customJobs"
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name, _, verb = url.path.removeprefix("/v1/").partition(":")
            with lock:
                if url.path == "/token":
                    self._answer(*grant(body))
                elif not admits(self.headers.get("Authorization")):
                    self._error(
                        401, "UNAUTHENTICATED", "Request had invalid authentication credentials."
                    )
                elif url.path == jobs:
                    self._create(body) if self.command == "POST" else self._list(
                        parse_qs(url.query)["filter"][0]
                    )
                elif name not in state.jobs:
                    self._error(404, "NOT_FOUND", f"The CustomJob does not exist: {name}")
                elif self.command == "GET":
                    self._answer(200, state.step(name))
                elif (
                    "endTime" in state.jobs[name]
                    or state.jobs[name]["state"] == "JOB_STATE_CANCELLING"
                ):
                    self._error(
                        400,
                        "FAILED_PRECONDITION",
                        "The CustomJob is not in a state in which it can be cancelled.",
                    )
                else:
                    assert verb == "cancel"
                    state.cancel(name)
                    self._answer(200, {})

        do_GET = do_POST = do  # noqa: N815

        def _create(self, body: bytes) -> None:
            answer = state.answers.pop(0) if state.answers else None
            created = (
                state.create(body) if answer in (None, "created, 503", "created, cut") else None
            )
            if answer is None:
                assert created
                self._answer(200, created)
            elif answer == "created, cut":
                self.close_connection = True
            elif answer == 429:
                quota = "aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus"
                self._error(
                    429,
                    "RESOURCE_EXHAUSTED",
                    f"The following quota metrics exceed quota limits: {quota}",
                )
            elif answer == 403:
                self._error(
                    403,
                    "PERMISSION_DENIED",
                    f"Permission 'aiplatform.customJobs.create' denied on resource '{jobs}'.",
                )
            else:
                self._error(503, "UNAVAILABLE", "The service is currently unavailable.")

        def _list(self, wanted: str) -> None:
            """Answer with the jobs of a filter: conditions on display_name and state, with AND."""
            matching = list(state.jobs.values())
            fields = {"display_name": "displayName", "state": "state"}
            for comparison in wanted.split(" AND "):
                parts = re.fullmatch(r'(\w+)(=|!=)"([^"]+)"', comparison)
                assert parts is not None
                name, equal, value = parts.groups()
                matching = [
                    job for job in matching if (job[fields[name]] == value) == (equal == "=")
                ]
            self._answer(200, {"customJobs": matching} if matching else {})

        def _error(self, status: int, code: str, message: str) -> None:
            self._answer(status, {"error": {"code": status, "message": message, "status": code}})

        def _answer(self, status: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = VertexServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for process in state.processes.values():
            process.kill()
            process.wait()


def _stamp(seconds: int = 0) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%f}000Z"
