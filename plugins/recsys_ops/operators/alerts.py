"""Tell a person that a task failed: a line in the log, and a POST request to a webhook."""

import json
import logging
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from recsys_ops.settings import load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def alert(context: "Context") -> None:
    """Log that a task failed, and send it as JSON to the connection ``alerts.conn_id``, if set.

    This is Airflow's ``on_failure_callback``. An error of the webhook is logged and changes nothing
    else.
    """
    task = context["task_instance"]
    message = {
        "dag": task.dag_id,
        "task": task.task_id,
        "run": task.run_id,
        "try": task.try_number,
        "log": getattr(task, "log_url", None),
        "error": str(context.get("exception")),
    }
    log.error("ALERT %s", json.dumps(message))
    conn_id = load_settings().alerts.conn_id
    if conn_id is None:
        return
    try:
        _post(Connection.get(conn_id), message)
    except (OSError, HTTPException, AirflowNotFoundException) as error:
        log.warning("the alert did not reach connection %s: %s", conn_id, error)


def _post(connection: Connection, message: dict[str, Any]) -> None:
    url, body = http_url(connection), json.dumps(message).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    if connection.password:
        request.add_header("Authorization", f"Bearer {connection.password}")
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def http_url(connection: Connection) -> str:
    """The URL of a connection of type http, without credentials; extra ``path`` is its path."""
    scheme, port = connection.schema or "https", f":{connection.port}" if connection.port else ""
    host = (connection.host or "").rpartition("://")[2]
    return f"{scheme}://{host}{port}/{connection.extra_dejson.get('path', '').lstrip('/')}"
