"""The operators send a SQL file as it is written: it is no template of Airflow's Jinja."""

from pathlib import Path

import pytest

from recsys_ops.errors import SettingsError
from recsys_ops.operators.extract_catalogue import ExtractCatalogueOperator
from recsys_ops.operators.extract_delta import ExtractDeltaOperator
from recsys_ops.settings import include_dir

# read as a template: an error at {%, a note that is left out, and a user whose id is empty
SQL = "SELECT '{%}' AS a, '{# note #}' AS b FROM events WHERE user_id <> '{{user_id}}'"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the SQL files of an own `include`."""
    (tmp_path / "recsys.yaml").write_bytes((include_dir() / "recsys.yaml").read_bytes())
    (tmp_path / "sql").mkdir()
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    return tmp_path / "sql"


@pytest.mark.parametrize("operator", [ExtractDeltaOperator, ExtractCatalogueOperator])
def test_a_sql_file_is_no_template(folder: Path, operator: type[ExtractDeltaOperator]) -> None:
    (folder / "own.sql").write_text(SQL, "utf-8-sig")
    task = operator(task_id="extract", sql="own.sql", day="2026-01-31")
    task.render_template_fields({})
    assert task.sql == SQL


def test_a_missing_sql_file_is_named_when_the_dag_is_read(folder: Path) -> None:
    with pytest.raises(SettingsError, match=rf"no SQL file at {folder}/own\.sql"):
        ExtractDeltaOperator(task_id="extract", sql="own.sql")
