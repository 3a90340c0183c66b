"""Write `include/recsys.yaml` and `docs/settings.md` from the sections: ``make settings``."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys_ops.settings import Settings, sections

ROOT = Path(__file__).parents[3]
WIDTH = 100
# where the shipped recsys.yaml differs from the defaults
SHIPPED: Mapping[str, Any] = {
    "storage.root": "file:///opt/airflow/recsys",
    "tuning.search": {
        "training.factors": {"low": 32, "high": 256, "log": True},
        "training.regularization": {"low": 0.01, "high": 1, "log": True},
        "training.iterations": {"low": 5, "high": 30},
        "confidence.alpha": {"low": 1, "high": 100, "log": True},
        "confidence.half_life_days": {"low": 15, "high": 365, "log": True},
    },
}

YAML_TITLE = """\
The settings of recsys-ops. docs/settings.md has all of this as tables, with types and bounds.
Each key can be overridden by an environment variable RECSYS_<SECTION>__<KEY>, for example
RECSYS_STORAGE__ROOT. Do not put secrets here: they belong in Airflow connections.
"""
PAGE_TITLE = """\
# Settings

The file `include/recsys.yaml` holds the settings. The environment variable `RECSYS_INCLUDE` is the
path of its folder; without it, that is the folder `include` beside `plugins`. An environment
variable overrides a key; its name is `RECSYS_`, then the section and the key in upper case, joined
by two underscores: `cleaning.bots.min_events` is `RECSYS_CLEANING__BOTS__MIN_EVENTS`. Lists and
maps are JSON there: `RECSYS_EVALUATION__EVENTS='["purchase"]'`. A key that is left out has its
default. An unknown key or a wrong value stops every task with a message that names the key. Do not
put secrets here: they belong in Airflow connections.

`make settings` writes this page and `include/recsys.yaml`. That file has every key, all with their
defaults except {shipped}.
"""


@dataclass(frozen=True)
class Entry:
    """A key or a section of the settings.

    path : dotted · text : what it means · schema : JSON schema of the value, or of the section
    required : a key without a default
    keys : of a section, also of one that may be null; empty for a plain key
    """

    path: str
    text: str
    schema: dict[str, Any]
    required: bool
    keys: tuple["Entry", ...]

    @property
    def optional_section(self) -> bool:
        return bool(self.keys) and "anyOf" in self.schema

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def entries() -> tuple[Entry, ...]:
    """The sections of the settings, in the order of the declaration."""
    schema = Settings.model_json_schema()
    texts = _docstrings()

    def of_section(
        properties: dict[str, Any], required: list[str], name: str, path: str
    ) -> Iterator[Entry]:
        for key, value in properties.items():
            reference = value.get("$ref") or next(
                (option["$ref"] for option in value.get("anyOf", ()) if "$ref" in option), ""
            )
            inner = reference.rpartition("/")[2]
            section = schema["$defs"].get(inner, {})
            yield Entry(
                f"{path}{key}",
                texts[name].get(key) or " ".join(section["description"].split()),
                value,
                key in required,
                tuple(
                    of_section(
                        section.get("properties", {}),
                        section.get("required", []),
                        inner,
                        f"{path}{key}.",
                    )
                ),
            )

    return tuple(of_section(schema["properties"], schema["required"], "Settings", ""))


def recsys_yaml() -> str:
    """The text of the shipped `include/recsys.yaml`."""
    lines = [*_comment(YAML_TITLE.rstrip().replace("\n", " "), 0)]
    for section in entries():
        lines += ["", *_yaml(section, 0)]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The text of `docs/settings.md`: a heading and a table for each section."""
    shipped = " and ".join(f"`{path}`" for path in SHIPPED)
    blocks = [
        textwrap.fill(block, WIDTH) for block in PAGE_TITLE.format(shipped=shipped).split("\n\n")
    ]
    for section in entries():
        blocks += _tables(section, 2)
    return "\n\n".join(blocks) + "\n"


def _docstrings() -> dict[str, dict[str, str]]:
    """The docstring under each field, by class and field.

    Read from the source here, not with pydantic's ``use_attribute_docstrings``, which would read it
    in every process that imports the settings and double the time to parse a DAG file.
    """
    texts: dict[str, dict[str, str]] = {"Settings": {}}
    for node in ast.parse(inspect.getsource(sections)).body:
        if isinstance(node, ast.ClassDef):
            texts[node.name] = {
                field.target.id: " ".join(docstring.value.value.split())
                for field, docstring in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(docstring, ast.Expr)
                and isinstance(docstring.value, ast.Constant)
                and isinstance(docstring.value.value, str)
            }
    return texts


def _yaml(entry: Entry, indent: int) -> Iterator[str]:
    """The lines of a key or section, its explanation above it."""
    margin = " " * indent
    yield from _comment(entry.text, indent)
    if entry.keys and not entry.optional_section:
        yield f"{margin}{entry.name}:"
        for key in entry.keys:
            yield from _yaml(key, indent + 2)
        return
    if entry.optional_section:
        yield from _comment(f"Its keys: {', '.join(key.name for key in entry.keys)}.", indent)
    value = SHIPPED[entry.path] if entry.path in SHIPPED else entry.schema["default"]
    if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
        yield f"{margin}{entry.name}:"
        for name, inner in value.items():
            yield f"{margin}  {name}: {_flow(inner)}"
    else:
        yield f"{margin}{entry.name}: {_flow(value)}"


def _comment(text: str, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML; whole numbers without a fraction."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    text = yaml.safe_dump(whole, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _tables(section: Entry, level: int) -> Iterator[str]:
    """The blocks of a section: heading, explanation, table, then the sections within it."""
    yield f"{'#' * level} {section.path}"
    yield textwrap.fill(
        _linked(section.text), WIDTH, break_long_words=False, break_on_hyphens=False
    )
    rows = [
        f"| `{key.name}` | {_type(key.schema)} | {_default(key)} | {_linked(key.text)} |"
        for key in section.keys
        if not key.keys or key.optional_section
    ]
    if rows:
        header = [
            "| key | type | default | meaning |",
            "|---|---|---|---|",
        ]
        yield "\n".join(header + rows)
    for key in section.keys:
        if key.keys:
            yield from _tables(key, level + 1)


def _default(key: Entry) -> str:
    return "required" if key.required else f"`{_flow(key.schema['default'])}`"


def _linked(text: str) -> str:
    return re.sub(r"docs/(\S+\.md)", r"[\1](\1)", text)


def _type(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "map"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    match schema["type"]:
        case "array":
            least = ", not empty" if schema.get("minItems") else ""
            return f"list of {_type(schema['items'])}{least}"
        case "object":
            names, values = schema["propertyNames"], schema["additionalProperties"]
            return f"map from {_type(names)} to {_type(values)}"
        case "boolean":
            return "`true`, `false`"
        case "string":
            pattern = schema.get("pattern", "").replace("|", r"\|")
            text = f"text that matches `{pattern}`" if pattern else "text"
            return str(schema.get("format", text)).replace("ipvanynetwork", "network")
    bounds = {
        "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"
    }  # fmt: skip
    limits = [text.format(_flow(schema[name])) for name, text in bounds.items() if name in schema]
    return " ".join([str(schema["type"]), ", ".join(limits)]).strip()


if __name__ == "__main__":
    (ROOT / "include" / "recsys.yaml").write_text(recsys_yaml())
    (ROOT / "docs" / "settings.md").write_text(settings_page())
