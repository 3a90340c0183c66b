"""Settings are validated when they are loaded, and an error names the key and what is allowed."""

import math
import re
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from recsys_ops import settings
from recsys_ops.errors import SettingsError
from recsys_ops.settings import pages


@pytest.fixture(autouse=True)
def fresh() -> None:
    settings.load_settings.cache_clear()


def numbers(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The keys that hold a number, of all sections that may not be null."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{prefix}{name}.")
        elif {int, float} & {field.annotation, *get_args(field.annotation)}:
            yield prefix + name


def test_recsys_yaml_and_the_page_are_what_make_settings_writes() -> None:
    written = (pages.ROOT / "include/recsys.yaml", pages.ROOT / "docs/settings.md")
    made = (pages.recsys_yaml(), pages.settings_page())
    assert [path.read_text() for path in written] == [*made], "run make settings"


def test_every_key_is_explained_in_one_or_more_sentences() -> None:
    def explained(entries: tuple[pages.Entry, ...]) -> Iterator[str]:
        for entry in entries:
            assert re.fullmatch(r"\S.{10,}[.]", entry.text), f"{entry.path}: {entry.text!r}"
            yield entry.path
            yield from explained(entry.keys)

    paths = [*explained(pages.entries())]
    assert len(paths) == len({*paths}) > 120


def test_the_shipped_file_has_every_key_and_its_default() -> None:
    loaded = settings.load_settings()
    shipped = yaml.safe_load(settings.settings_file().read_text())
    assert settings.Settings.model_validate(shipped) == loaded
    assert shipped.keys() == loaded.model_dump().keys()
    defaults = loaded.model_copy(
        update={
            "tuning": settings.TuningSettings(search=loaded.tuning.search),
            "confidence": settings.ConfidenceSettings(),
            **{
                name: field.default
                for name, field in settings.Settings.model_fields.items()
                if name not in ("storage", "tuning", "confidence")
            },
        }
    )
    assert loaded == defaults


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RECSYS_GATE__MIN_USERS", "-7", ["gate.min_users", "greater than or equal to 1", "-7"]),
        ("RECSYS_GATE__MAX_DROP", "5", ["gate.max_drop", "less than or equal to 1"]),
        ("RECSYS_STORAGE__ROOT", "/data", ["storage.root", "abfs"]),
        ("RECSYS_STORAGE__ROOT", "file:///a#b", ["storage.root", "a#b"]),
        ("RECSYS_CONFIDENCE__ALPHA", "inf", ["confidence.alpha", "finite number"]),
        ("RECSYS_CONFIDENCE__HALF_LIFE_DAYS", "1e999", ["confidence.half_life_days", "finite"]),
        ("RECSYS_CONFIDENCE__WEIGHTS", '{"view": NaN}', ["confidence.weights.view", "finite"]),
        (
            "RECSYS_TUNING__SEARCH",
            '{"confidence.alpha": {"low": 1, "high": Infinity}}',
            ["tuning.search.confidence.alpha.high", "finite"],
        ),
        ("RECSYS_HISTORY__RETENTION_DAYS", "99999999", ["retention_days", "equal to 36500"]),
        ("RECSYS_WORKER__TIMEOUT_S", "99999999", ["worker.timeout_s", "equal to 604800"]),
        ("RECSYS_EVALUATION__CUTOFFS", "[20, 10]", ["evaluation.cutoffs", "must ascend"]),
        ("RECSYS_EVALUATION__CUTOFFS", "[]", ["evaluation.cutoffs", "at least 1"]),
        ("RECSYS_EVALUATION__EVENTS", '["buy"]', ["evaluation.events.0", "'purchase'", "buy"]),
        ("RECSYS_EVALUATION__EVENTS", "purchase", ["not JSON", "evaluation"]),
        (
            "RECSYS_CLEANING__CRAWLERS__ALLOW",
            '["("]',
            ["cleaning.crawlers.allow.0", "not a regular expression"],
        ),
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


@pytest.mark.parametrize("key", sorted(numbers(settings.Settings)))
def test_no_number_may_be_infinite(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"RECSYS_{key.replace('.', '__').upper()}", "inf")
    with pytest.raises(SettingsError, match=f"{key}: Input should be a "):
        settings.load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSYS_STORAGE__ROOT", "abfs://h1dd3n@account/folder"),
        ("RECSYS_STORAGE__ROOT", "abfs://shop:h1dd3n@account.dfs.core.windows.net/folder"),
        ("RECSYS_STORAGE__ROOT", "abfs://container/folder?sv=2022&sig=h1dd3n"),
        ("RECSYS_WORKER__STAGING_URL", "gs://h1dd3n@bucket/folder"),
        ("RECSYS_STORAGE__CONN_ID", "DefaultEndpointsProtocol=https;AccountKey=h1dd3n"),
        ("RECSYS_SOURCE__CONN_ID", "postgresql://shop:h1dd3n@db/shop"),
        ("RECSYS_SERVING__CONN_ID", "rediss://:h1dd3n@redis:6379/0"),
        ("RECSYS_ALERTS__CONN_ID", "https://hooks.example/services/h1dd3n"),
        ("RECSYS_MLFLOW__CONN_ID", "https://mlflow.example/?token=h1dd3n"),
        ("RECSYS_WORKER__GCE", '{"endpoint": "https://shop:h1dd3n@compute.googleapis.com"}'),
    ],
)
def test_a_secret_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match="connection") as error:
        settings.load_settings()
    key = variable.removeprefix("RECSYS_").lower().replace("__", ".")
    assert f"  {key}" in str(error.value)
    shown = traceback.format_exception(error.value)
    assert "h1dd3n" not in "".join(line for line in shown if "tests/test_settings.py" not in line)


@pytest.mark.parametrize(
    "root",
    [
        "abfs://shop@account.dfs.core.windows.net/recsys",
        "abfs://shop@127.0.0.1:10000/recsys",
        "file:///srv/shop@home:1",
    ],
)
def test_an_account_in_a_url_is_no_secret(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", root)
    assert settings.load_settings().storage.root == root


@pytest.mark.parametrize(
    ("key", "typo", "words"),
    [
        ("  factors: 64", "  factor: 64", "training.factor; did you mean training.factors?"),
        ("  max_drop: 0.05", "  max_dorp: 0.05", "gate.max_dorp; did you mean gate.max_drop"),
        ("    roles: [", "    rols: [", "cleaning.staff.rols; did you mean cleaning.staff.roles?"),
        ("\ngate:", "\ngtae:", "gtae; did you mean gate?"),
        ("  keep_newest:", "  keep: 14\n  keep_newest:", "models.keep; did you mean models.keep"),
        ("\nalerts:", "\nwebhook: 1\nalerts:", "webhook; docs/settings.md lists all"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, typo: str, words: str
) -> None:
    text = settings.settings_file().read_text()
    assert text.count(key) == 1
    (tmp_path / "recsys.yaml").write_text(text.replace(key, typo))
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    with pytest.raises(SettingsError, match=re.escape(f"unknown setting {words}")):
        settings.load_settings()


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("RECSYS_GATE__MIN_USER", "unknown setting gate.min_user; did you mean gate.min_users"),
        ("RECSYS_GTAE__MIN_USERS", "unknown setting gtae.min_users; did you mean gate.min_users"),
        (
            "RECSYS_CLEANING__BOTS__WINDOW__MIN_DAYS",
            "unknown setting cleaning.bots.window.min_days; did you mean cleaning.slow_bots.min_da",
        ),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_keys(
    monkeypatch: pytest.MonkeyPatch, variable: str, words: str
) -> None:
    monkeypatch.setenv(variable, "5")
    with pytest.raises(SettingsError, match=re.escape(f"{variable}: {words}")):
        settings.load_settings()


def test_a_variable_may_set_one_entry_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CONFIDENCE__WEIGHTS__VIEW", "0.5")
    assert settings.load_settings().confidence.weights["view"] == 0.5
    assert settings.load_settings().confidence.weights["cart"] == 3


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


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped folder, without the keys that the presets set."""
    shutil.copytree(settings.include_dir(), tmp_path, dirs_exist_ok=True)
    keys = r"^  (weights|half_life_days|repeat_decay|bm25|min_\w+_per_\w+):.*\n"
    file = tmp_path / "recsys.yaml"
    file.write_text(re.sub(keys, "", file.read_text(), flags=re.M))
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    return tmp_path


def test_a_preset_sets_the_keys_that_are_left_out(
    include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CONFIDENCE__PRESET", "recency_bm25")
    found = settings.load_settings().confidence
    assert found.weights["view"] == 0.1
    assert 0.5 ** (25 / (found.half_life_days or 0)) == pytest.approx(math.exp(-1))
    assert found.bm25 == settings.Bm25Settings(k1=1.2, b=0.3)
    assert (found.repeat_decay, found.min_items_per_user, found.min_users_per_item) == (0.8, 3, 5)
    assert found.alpha == 16


def test_a_key_that_is_given_is_not_touched_by_the_preset(
    include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = include / "recsys.yaml"
    given = "  preset: recency_bm25\n  bm25: null\n  weights: {purchase: 2}\n"
    file.write_text(file.read_text().replace("  preset: null\n", given))
    found = settings.load_settings().confidence
    assert (found.bm25, found.weights, found.repeat_decay) == (None, {"purchase": 2}, 0.8)


@pytest.mark.parametrize("path", sorted((settings.include_dir() / "presets").glob("*.yaml")))
def test_each_shipped_preset_loads_and_says_where_it_comes_from(
    path: Path, include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CONFIDENCE__PRESET", path.stem)
    assert path.read_text().startswith("# ")
    assert path.stem in settings.settings_file().read_text()
    assert settings.load_settings().confidence.preset == path.stem


def test_a_preset_may_set_keys_of_any_section(
    include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (include / "presets" / "small.yaml").write_text("training: {factors: 8}\n")
    file = include / "recsys.yaml"
    file.write_text(file.read_text().replace("  factors: 64\n", ""))
    monkeypatch.setenv("RECSYS_CONFIDENCE__PRESET", "small")
    assert settings.load_settings().training.factors == 8


def test_a_preset_without_a_file_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECSYS_CONFIDENCE__PRESET", "shop")
    with pytest.raises(
        SettingsError, match=r"no .*shop\.yaml; .*: recency_bm25, retail_demo_store$"
    ):
        settings.load_settings()


def test_a_preset_that_changes_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CONFIDENCE__PRESET", "retail_demo_store")
    with pytest.raises(SettingsError, match=r"changes nothing.*Delete .*confidence\.weights$"):
        settings.load_settings()
