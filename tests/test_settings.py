"""Settings are validated when they are loaded, and an error names the key and what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_ops import settings
from recsys_ops.errors import SettingsError


@pytest.fixture(autouse=True)
def fresh() -> None:
    settings.load_settings.cache_clear()


def test_the_shipped_settings_load_and_every_key_is_explained_once() -> None:
    loaded = settings.load_settings()
    lines = settings.settings_file().read_text().splitlines()

    def explained(values: dict[str, Any], indent: int, path: str) -> None:
        for key, value in values.items():
            found = [n for n, line in enumerate(lines) if line.startswith(f"{' ' * indent}{key}:")]
            assert found, f"{path}{key} is not in recsys.yaml"
            if isinstance(value, dict) and key != "weights" and path != "tuning.search.":
                explained(value, indent + 2, f"{path}{key}.")
            else:
                assert all(lines[n - 1].lstrip().startswith("#") for n in found), (
                    f"{path}{key} is not explained"
                )

    explained(loaded.model_dump(), 0, "")
    assert yaml.safe_load("\n".join(lines)).keys() == loaded.model_dump().keys()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RECSYS_GATE__MIN_USERS", "-7", ["gate.min_users", "greater than or equal to 1", "-7"]),
        ("RECSYS_GATE__MAX_DROP", "5", ["gate.max_drop", "less than or equal to 1"]),
        ("RECSYS_STORAGE__ROOT", "/data", ["storage.root", "abfs"]),
        ("RECSYS_STORAGE__ROOT", "file:///a#b", ["storage.root", "a#b"]),
        ("RECSYS_EVALUATION__CUTOFFS", "[20, 10]", ["evaluation.cutoffs", "must ascend"]),
        ("RECSYS_EVALUATION__CUTOFFS", "[]", ["evaluation.cutoffs", "at least 1"]),
        ("RECSYS_EVALUATION__EVENTS", '["buy"]', ["evaluation.events.0", "'purchase'", "buy"]),
        ("RECSYS_EVALUATION__EVENTS", "purchase", ["not JSON", "evaluation"]),
        (
            "RECSYS_CLEANING__CRAWLERS__ALLOW",
            '["("]',
            ["cleaning.crawlers.allow.0", "not a regular expression"],
        ),
        ("RECSYS_GTAE__MIN_USERS", "5", ["RECSYS_GTAE__MIN_USERS", "GATE"]),
        (
            "RECSYS_CLEANING__STAFF__NETWORKS",
            '["10.0.0.0/99"]',
            ["cleaning.staff.networks.0", "network"],
        ),
        (
            "RECSYS_TUNING__SEARCH",
            '{"training.iterations": {"low": 40}}',
            ["tuning.search.training.iterations", "larger high"],
        ),
        (
            "RECSYS_TUNING__SEARCH",
            '{"training.factors": {"low": 0.5, "log": false}}',
            ["0.5 for training.factors", "integer"],
        ),
        (
            "RECSYS_TUNING__SEARCH",
            '{"training.seed": {"choices": [1, 2]}}',
            ["tuning.search.training.seed", "training.factors"],
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        settings.load_settings()
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_unknown_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = settings.settings_file().read_text().replace("  max_drop:", "  max_dorp:")
    (tmp_path / "recsys.yaml").write_text(text)
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    with pytest.raises(SettingsError, match=r"gate\.max_dorp"):
        settings.load_settings()


def test_missing_settings_say_where_they_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    with pytest.raises(SettingsError, match="RECSYS_INCLUDE"):
        settings.load_settings()


def test_one_key_of_a_nested_section_can_be_overridden_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECSYS_CLEANING__BOTS__MIN_EVENTS", "5")
    loaded = settings.load_settings()
    assert loaded.cleaning.bots.min_events == 5
    assert loaded.cleaning.bots.max_items == 250
