"""Telling a person that a task failed: an error line in the log, and a JSON POST where `alerts.conn_id` says so."""

import json
import logging
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from airflow.sdk import Connection

from recsys_ops.settings import load_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def alert(context: "Context") -> None:
    """Airflow's ``on_failure_callback``. A webhook that is away is logged and changes nothing else."""
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
    connection = Connection.get(conn_id)
    schema, port = connection.schema or "https", f":{connection.port}" if connection.port else ""
    url = f"{schema}://{connection.host}{port}/{connection.extra_dejson.get('path', '').lstrip('/')}"
    request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json"})  # noqa: S310
    if connection.password:
        request.add_header("Authorization", f"Bearer {connection.password}")
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.URLError as error:
        log.warning("the alert did not reach connection %s: %s", conn_id, error.reason)
