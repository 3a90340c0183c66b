"""What holds for every DAG, read from its file without scheduler; how Airflow loads our plugin."""

import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from recsys_ops.ingest.steps import STEPS

ROOT = Path(__file__).parents[2]
HEAVY = [
    "adlfs", "airflow.providers.google", "airflow.providers.microsoft", "cupy", "deltalake",
    "implicit", "mlflow", "numpy", "obstore", "optuna", "pandas", "polars", "psycopg", "re2",
    "redis", "scipy",
]  # fmt: skip

DESCRIBE = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.dag_version_inflation_checker import check_dag_file_stability
before, start = set(sys.modules), time.process_time()
bag = DagBag("dags")
cpu_seconds = time.process_time() - start
print(json.dumps({
    "errors": bag.import_errors,
    "heavy": sorted(set(HEAVY) & (set(sys.modules) - before)),
    "cpu_seconds": cpu_seconds,
    "unstable": [
        path for path in {dag.fileloc for dag in bag.dags.values()}
        if check_dag_file_stability(path).warnings
    ],
    "dags": {dag.dag_id: {
        "tags": sorted(dag.tags), "doc": dag.doc_md, "catchup": dag.catchup,
        "timeout": dag.dagrun_timeout is not None,
        "order": [task.task_id for task in dag.topological_sort()],
        "tasks": {task.task_id: {
            "owner": task.owner, "retries": task.retries,
            "timeout": task.execution_timeout is not None,
            "alert": bool(task.on_failure_callback), "templated": sorted(task.template_fields),
        } for task in dag.tasks},
    } for dag in bag.dags.values()},
}))
"""

PLUGIN = """
import json
import fastapi, pandas, redis, sqlalchemy
from airflow import plugins_manager
from airflow.sdk._shared.module_loading.file_discovery import find_path_from_directory
from airflow.sdk import plugins_manager as sdk
from airflow.sdk.execution_time import macros
sdk.integrate_macros_plugins()
print(json.dumps({
    "files": sorted(
        path for path in find_path_from_directory("plugins", ".airflowignore")
        if path.endswith(".py")
    ),
    "macros": sorted(name for name in vars(macros.recsys_ops) if name == "run_day"),
    "shadowed": [
        module.__name__ for module in (fastapi, pandas, redis, sqlalchemy)
        if "site-packages" not in module.__file__
    ],
}))
"""


def described(code: str, home: Path, **settings: str) -> Any:
    """What `code` prints in a fresh Python with Airflow's home in `home`, read from JSON."""
    env = os.environ | {
        **settings,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL": "error",
        "PYTHONPATH": str(ROOT / "plugins"),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{code}"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return described(DESCRIBE, tmp_path_factory.mktemp("parse"))


def test_the_dags_import_and_read_like_the_diagram(bag: Any) -> None:
    assert bag["errors"] == {}
    assert {name: dag["order"] for name, dag in bag["dags"].items()} == {
        "recsys_ingest": [
            "extract_delta",
            *STEPS,
            *("commit_history", "expire", "announce_day"),
        ],
        "recsys_retrain": [
            *("extract_catalogue", "build_matrix", "train", "evaluate"),
            *("gate", "refresh_redis"),
        ],
        "recsys_rollback": ["rollback"],
        "recsys_tune": [
            *(f"batch_{n}.{task}" for n in (1, 2, 3, 4) for task in ("ask", "trial", "tell")),
            "propose",
        ],
    }


def test_by_settings_a_person_approves_and_mlflow_has_a_mirror(tmp_path: Path) -> None:
    bag = described(
        DESCRIBE, tmp_path, RECSYS_GATE__APPROVAL="true", RECSYS_MLFLOW__CONN_ID="tracking"
    )
    assert bag["errors"] == {}
    assert bag["heavy"] == []
    assert bag["dags"]["recsys_retrain"]["order"][-4:] == [
        "gate",
        "approve",
        "refresh_redis",
        "mirror",
    ]
    assert bag["dags"]["recsys_rollback"]["order"] == ["rollback", "mirror"]


def test_every_dag_has_owner_tags_page_retries_timeouts_and_alert(bag: Any) -> None:
    for dag_id, dag in bag["dags"].items():
        assert "recsys" in dag["tags"], dag_id
        assert len(dag["doc"]) > 300, dag_id
        assert dag["timeout"], dag_id
        assert not dag["catchup"], dag_id
        for task_id, task in dag["tasks"].items():
            assert task["owner"] == "recsys", task_id
            assert task["retries"] >= 1, task_id
            assert task["timeout"], task_id
            assert task["alert"], task_id
            assert "day" in task["templated"], task_id
    assert "sql" in bag["dags"]["recsys_ingest"]["tasks"]["extract_delta"]["templated"]


def test_parsing_the_dag_files_is_cheap_and_loads_nothing_heavy(bag: Any) -> None:
    assert bag["heavy"] == []
    assert (
        bag["cpu_seconds"] < 1
    )  # of all four files; it does not depend on how busy the machine is


def test_parsing_again_makes_no_new_dag_version(bag: Any) -> None:
    assert bag["unstable"] == []


def test_airflow_loads_one_plugin_file_that_shadows_no_package(tmp_path: Path) -> None:
    loaded = described(PLUGIN, tmp_path)
    assert [
        Path(path).relative_to(ROOT / "plugins").as_posix()
        for path in map(os.path.abspath, loaded["files"])
    ] == ["recsys_ops/airflow_plugin.py"]
    assert loaded["shadowed"] == []
    assert loaded["macros"] == ["run_day"]


def test_no_module_of_ours_has_the_name_of_another_package() -> None:
    own = {path.stem for path in (ROOT / "plugins" / "recsys_ops").rglob("*.py")} - {
        "__init__",
        "__main__",
    }
    assert own & ({*packages_distributions()} | sys.stdlib_module_names) == set()
