"""The pages: each in the navigation, no dead link, no settings key that does not exist."""

import argparse
import ast
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from recsys_ops.cli import history, live_lists, models, quarantine
from recsys_ops.evaluation.gate import RULES
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
FENCE = re.compile(r"```.*?```", re.DOTALL)
SECTIONS = "|".join(Settings.model_fields)
KEY = re.compile(rf"`((?:{SECTIONS})\.[a-z_0-9.]+)(?:: [^`]*)?`")
FILE = re.compile(r"`((?:recsys_ops|benchmarks|tests|dags|plugins)/[\w./-]+\w)`")
TARGET = re.compile(r"`make ([a-z]+(?:-[a-z]+)*)\b(?!-)")
TOPS = (ROOT, ROOT / "plugins")
# file names in the form of a key
NOT_KEYS = {"evaluation.npz"}


def navigation(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        values = entry.values() if isinstance(entry, dict) else [entry]
        for value in values:
            yield from navigation(value) if isinstance(value, list) else [str(value)]


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        kinds = getattr(field.annotation, "__args__", ()) or (field.annotation,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys(kind, f"{prefix}{name}.")


def test_every_page_stands_in_the_navigation() -> None:
    shown = list(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(shown) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    targets = LINK.findall(FENCE.sub("", page.read_text()))
    dead = [
        target
        for target in targets
        if not target.startswith(("http://", "https://")) and not (page.parent / target).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_a_page_names_exist(page: Path) -> None:
    named = set(KEY.findall(page.read_text())) - NOT_KEYS
    assert named - set(keys(Settings)) == set()


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_commands_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    files = set(FILE.findall(text))
    targets = set(TARGET.findall(text))
    gone = {name for name in files if not any((top / name).exists() for top in TOPS)}
    makefile = (ROOT / "Makefile").read_text()
    assert gone | {name for name in targets if not re.search(rf"^{name}:", makefile, re.M)} == set()


def test_the_drawing_shows_the_layers_of_pyproject() -> None:
    layers = (ROOT / "pyproject.toml").read_text().split("layers = [")[1].split("]")[0]
    drawn = re.findall(
        r'class="layer"[^>]*>([^<]+)<', (DOCS / "explanation/layers.svg").read_text()
    )
    assert drawn == re.findall(r"\w+", layers)


def test_the_command_line_page_has_every_command_and_option() -> None:
    rows = (DOCS / "reference/command-line.md").read_text().splitlines()
    for command, options in commands():
        (row,) = [line for line in rows if re.match(rf"\| `{command}\b", line)]
        assert [option for option in options if f"`{option}" not in row] == [], command


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command with its options."""
    groups = argparse.ArgumentParser().add_subparsers()
    for module in (history, quarantine, models, live_lists):
        module.add_commands(groups)
    for group, parser in groups.choices.items():
        (action,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for name, command in action.choices.items():
            options = [option for a in command._actions for option in a.option_strings]
            yield f"{group} {name}", [o for o in options if o not in ("-h", "--help")]


@pytest.mark.parametrize("page", ["operations.md", "explanation/gate.md"])
def test_every_rule_of_the_gate_is_explained(page: str) -> None:
    first = re.findall(r"^\| ([a-z_, ]+) \|", (DOCS / page).read_text(), re.MULTILINE)
    assert set(RULES) - {name for cell in first for name in cell.split(", ")} == set()


def test_the_storage_page_has_the_paths_of_a_day() -> None:
    page = (DOCS / "reference/storage.md").read_text()
    day = date(2026, 1, 31)
    generations = [
        paths.generation(kind, day, 12, "3f9a1c07") for kind in (paths.RAW, paths.CATALOGUE)
    ]
    objects = [*generations, paths.encoded(day)]
    assert [path for path in objects if f"`{path.replace(str(day), 'D')}`" not in page] == []


def test_messages_on_the_operations_page_are_the_codes() -> None:
    """What stands in backquotes in the first column of a table of messages; … is any text."""
    page = (DOCS / "operations.md").read_text().split("## Messages")[1]
    page = page.split("### Without a message of recsys-ops")[0]
    first = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    quoted = [message for cell in first for message in re.findall(r"`([^`]+)`", cell)]
    texts = list(messages())
    lost = [
        message
        for message in quoted
        if not any(re.search(re.escape(message).replace("…", ".+"), text) for text in texts)
    ]
    assert len(quoted) > 40
    assert lost == []


def messages() -> Iterator[str]:
    """Every text in the package, with … for what is filled in."""
    for file in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", "…") for part in node.values)
                yield "".join(part if isinstance(part, str) else "…" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_no_line_of_a_page_is_longer_than_100_columns() -> None:
    """Tables, links that cannot be broken and what a command prints may be longer."""
    too_long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in [*PAGES, *OUTSIDE]
        for number, line in enumerate(FENCE.sub(blanked, page.read_text()).splitlines(), 1)
        if len(line) > 100 and not line.lstrip().startswith("|")
    ]
    assert too_long == []


def blanked(match: re.Match[str]) -> str:
    return "\n" * match.group(0).count("\n")
