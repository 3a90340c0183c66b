"""Runs single tasks of the DAG files, each in a process of its own that can be killed.

This process imports what is slow to import, then reads calls, one a line, and forks a child for
each. A call is JSON: task_id, folder, dag_id, run, env, max_file_bytes. Standard output says
``started <pid>`` when the task begins and ``ended <exit code>`` when it has ended. A child that was
not killed leaves ``outcome.json`` (figures, or error and message) and its log in the folder.
"""

import importlib.util
import json
import os
import resource
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PROJECT = Path(__file__).parents[2]
# The thread that deletes Polars' spilled data; it sleeps, because this process spills none.
POLARS_CLEANER = "polars-ooc-clea"
# Slow to import. PyArrow is not among them: it starts a thread that allocates.
WARM = (
    "airflow.providers.standard.operators.empty",
    "airflow.sdk.definitions.timetables.trigger",
    "airflow.sdk.execution_time.supervisor",
    "numba",
    "numpy",
    "obstore.store",
    "polars",
    "psycopg",
    "recsys_ops.ingest.clean_day",
    "recsys_ops.ingest.commit",
    "recsys_ops.models.registry",
    "recsys_ops.operators.extract_delta",
    "redis",
    "scipy.sparse",
    "sqlalchemy.dialects.postgresql.psycopg",
)


def main() -> None:
    for name in WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        assert len(names) == 1 + names.count(POLARS_CLEANER), (
            f"a process with threads must not fork: {names}"
        )
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}", flush=True)


def child(call: dict[str, Any]) -> int:
    """Run the task and write its outcome into the folder; returns 0 if it succeeded."""
    folder = Path(call["folder"])
    os.setsid()
    say = os.dup(1)
    with (folder / "log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(call["env"])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if call["max_file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (call["max_file_bytes"], limit[1]))
    try:
        outcome = {"figures": run_task(call["dag_id"], call["task_id"], call["run"], say)}
    except BaseException as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    (folder / "outcome.json").write_text(json.dumps(outcome, default=str))
    return int("error" in outcome)


def run_task(dag_id: str, task_id: str, run: dict[str, Any], say: int) -> Any:
    """Render the operator's fields as Airflow does, and execute it."""
    from airflow.sdk.bases.operator import BaseOperator, ExecutorSafeguard

    from recsys_ops import run_day

    spec = importlib.util.spec_from_file_location(dag_id, PROJECT / "dags" / f"{dag_id}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    a_task = next(value for value in vars(module).values() if isinstance(value, BaseOperator))
    task = a_task.dag.get_task(task_id)
    dates = {
        name: datetime.fromisoformat(run[name]) if run[name] else None
        for name in ("logical_date", "run_after")
    }
    context = {
        "dag_run": SimpleNamespace(
            run_id=run["run_id"], run_type=run["run_type"], triggering_user_name="mara", **dates
        ),
        "params": {
            **{name: param.value for name, param in task.dag.params.items()},
            **run["params"],
        },
        "macros": SimpleNamespace(recsys_ops=run_day),
    }
    task.render_template_fields(context, task.dag.get_template_env())
    os.write(say, f"started {os.getpid()}\n".encode())
    return task.execute(
        context, **{f"{type(task).__name__}__sentinel": ExecutorSafeguard.sentinel_value}
    )


if __name__ == "__main__":
    main()
