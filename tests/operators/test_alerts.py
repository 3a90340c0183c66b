"""A failed task sends an alert: a line in the log, and a POST request to a webhook."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from recsys_ops.operators.alerts import alert
from recsys_ops.settings import load_settings

FAILED = SimpleNamespace(
    dag_id="recsys_retrain",
    task_id="gate",
    run_id="manual__1",
    try_number=1,
    log_url="http://airflow/log",
)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, Any]]]:
    """The requests that a local HTTP server has received: path, Authorization, body."""
    received: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, self.headers["Authorization"], body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = {
        "conn_type": "http",
        "schema": "http",
        "host": "127.0.0.1",
        "port": server.server_port,
        "password": "s3cret",
    }
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", json.dumps(connection | {"extra": {"path": "/alerts"}}))
    monkeypatch.setenv("RECSYS_ALERTS__CONN_ID", "hook")
    load_settings.cache_clear()
    yield received
    load_settings.cache_clear()
    server.shutdown()


def fail() -> None:
    alert({"task_instance": FAILED, "exception": RuntimeError("not blessed: NDCG@20 −7.2 %")})  # type: ignore[typeddict-item]


def test_a_failure_is_posted_with_where_and_why(webhook: list[Any]) -> None:
    fail()
    path, authorization, body = webhook[0]
    assert (path, authorization) == ("/alerts", "Bearer s3cret")
    assert body["dag"] == "recsys_retrain"
    assert body["task"] == "gate"
    assert "NDCG@20 −7.2 %" in body["error"]


def test_a_webhook_that_does_not_answer_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_HOOK",
        json.dumps({"conn_type": "http", "schema": "http", "host": "127.0.0.1", "port": 1}),
    )
    monkeypatch.setenv("RECSYS_ALERTS__CONN_ID", "hook")
    load_settings.cache_clear()
    fail()
    load_settings.cache_clear()
    assert "the alert did not reach connection hook" in caplog.text


def test_without_a_connection_the_log_has_the_alert(caplog: pytest.LogCaptureFixture) -> None:
    load_settings.cache_clear()
    fail()
    assert "ALERT" in caplog.text
    assert "not blessed" in caplog.text
