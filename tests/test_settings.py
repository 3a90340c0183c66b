"""Settings are validated when they are loaded, and an error names the key and what is allowed."""

from pathlib import Path

import pytest

from recsys_ops import settings
from recsys_ops.errors import SettingsError


@pytest.fixture(autouse=True)
def fresh() -> None:
    settings.load_settings.cache_clear()


def test_the_shipped_settings_load_and_every_key_is_explained_once() -> None:
    loaded = settings.load_settings()
    text = settings.settings_file().read_text()
    for section, value in loaded.model_dump().items():
        assert f"\n{section}:" in text
        for key in value:
            assert text.count(f"  {key}:") >= 1, f"{section}.{key} is not in recsys.yaml"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RECSYS_GATE__MIN_USERS", "-7", ["gate.min_users", "greater than or equal to 1", "-7"]),
        ("RECSYS_GATE__MAX_DROP", "5", ["gate.max_drop", "less than or equal to 1"]),
        ("RECSYS_STORAGE__ROOT", "/data", ["storage.root", "abfs"]),
        ("RECSYS_TRAINING__WORKER", "cloud", ["training.worker", "'local'"]),
        ("RECSYS_CLEANING__STAFF__NETWORKS", '["10.0.0.0/99"]', ["cleaning.staff.networks.0", "network"]),
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


def test_missing_settings_say_where_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    with pytest.raises(SettingsError, match="RECSYS_INCLUDE"):
        settings.load_settings()


def test_one_key_of_a_nested_section_can_be_overridden_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CLEANING__BOTS__MIN_EVENTS", "5")
    loaded = settings.load_settings()
    assert loaded.cleaning.bots.min_events == 5
    assert loaded.cleaning.bots.max_items == 250
