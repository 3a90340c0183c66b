"""What holds for every file of tests."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(
    path.relative_to(TESTS) for path in TESTS.rglob("*.py") if "node_modules" not in path.parts
)


@pytest.fixture(params=FILES, ids=str)
def tree(request: pytest.FixtureRequest) -> ast.Module:
    return ast.parse((TESTS / request.param).read_text())


def test_a_tests_name_has_fewer_than_70_columns(tree: ast.Module) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in ast.walk(tree) if isinstance(node, functions)]
    assert [name for name in names if name.startswith("test_") and len(name) >= 70] == []


def test_nothing_is_imported_from_a_file_of_tests(tree: ast.Module) -> None:
    """Shared code is in tests/support."""
    nodes = list(ast.walk(tree))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    ]
    last = {module: module.rpartition(".")[2] for module in modules}
    assert [name for name in last if last[name].startswith(("test_", "conftest"))] == []
