"""Where the settings come from: the environment, then `recsys.yaml`, then a preset."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableSettings

from recsys_ops.errors import SettingsError
from recsys_ops.settings.sections import (
    HIDDEN,
    AlertSettings,
    CleaningSettings,
    ConfidenceSettings,
    EvaluationSettings,
    GateSettings,
    HistorySettings,
    ListsSettings,
    MlflowSettings,
    ModelsSettings,
    Section,
    ServingSettings,
    SourceSettings,
    StorageSettings,
    TrainingSettings,
    TuningSettings,
    WorkerSettings,
)

_PREFIX = "RECSYS_"


class Settings(BaseSettings):
    """All settings, frozen. Pass on the smallest section that the called function needs."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    storage: StorageSettings
    history: HistorySettings = HistorySettings()
    source: SourceSettings = SourceSettings()
    cleaning: CleaningSettings = CleaningSettings()
    confidence: ConfidenceSettings
    training: TrainingSettings = TrainingSettings()
    worker: WorkerSettings = WorkerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    models: ModelsSettings = ModelsSettings()
    tuning: TuningSettings = TuningSettings()
    lists: ListsSettings = ListsSettings()
    serving: ServingSettings = ServingSettings()
    mlflow: MlflowSettings = MlflowSettings()
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="after")
    def _history_covers_the_window(self) -> Self:
        needed = self.confidence.window_days + self.source.lookback_days
        if self.history.retention_days < needed:
            raise ValueError(
                f"history.retention_days = {self.history.retention_days} is less than "
                f"confidence.window_days + source.lookback_days = {needed}: "
                "models would learn from days that are deleted"
            )
        return self

    @model_validator(mode="after")
    def _worker_is_described(self) -> Self:
        if self.worker.launcher == "vertex":
            if self.worker.vertex is None:
                raise ValueError(
                    "worker.launcher is vertex, but worker.vertex is null: "
                    "give at least its project, region, image and service_account"
                )
            if not (self.worker.staging_url or "").startswith("gs://"):
                raise ValueError(
                    "worker.launcher is vertex, but worker.staging_url is no gs://bucket/folder: "
                    "a job on Vertex AI can read no other storage without a secret"
                )
        if self.worker.gce and self.worker.launcher != "ssh":
            raise ValueError(
                "worker.gce names a machine to start, "
                f"but worker.launcher is {self.worker.launcher}, not ssh"
            )
        return self

    @model_validator(mode="after")
    def _searched_values_are_allowed(self) -> Self:
        for name, search_range in self.tuning.search.items():
            section_name, _, key = name.partition(".")
            section = getattr(self, section_name)
            for value in search_range.ends:
                try:
                    type(section).model_validate({**dict(section), key: value})
                except ValidationError as error:
                    raise ValueError(
                        f"tuning.search has {value} for {name}: {error.errors()[0]['msg']}"
                    ) from error
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = YamlConfigSettingsSource(settings_cls, yaml_file=settings_file())
        return env_settings, file, _PresetSource(settings_cls)


class _PresetSource(PydanticBaseSettingsSource):
    """The values of the preset that ``confidence.preset`` names, for the keys not yet given.

    A key is set as a whole: given `weights` are not completed with those of the preset.
    Raises SettingsError when there is no such preset, or when it would change nothing.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # abstract in the base class, but never called

    def __call__(self) -> dict[str, Any]:
        confidence = self.current_state.get("confidence")
        name = confidence.get("preset") if isinstance(confidence, dict) else None
        if not isinstance(name, str):
            return {}
        folder = include_dir() / "presets"
        presets = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if name not in presets:
            raise SettingsError(
                f"confidence.preset is {name}, but there is no {folder / name}.yaml; "
                f"the presets there are: {', '.join(presets) or 'none'}"
            )
        preset = yaml.safe_load(presets[name].read_text())
        not_given = {
            section: {
                key: value
                for key, value in values.items()
                if key not in (self.current_state.get(section) or {})
            }
            for section, values in preset.items()
        }
        if not any(not_given.values()):
            keys = ", ".join(f"{section}.{key}" for section in preset for key in preset[section])
            raise SettingsError(
                f"confidence.preset {name} changes nothing, because all its keys are in "
                f"{settings_file()}. Delete there what the preset should set, of: {keys}"
            )
        return not_given


def include_dir() -> Path:
    """The folder of `recsys.yaml`, `contract.yaml`, `presets/` and `sql/`.

    It is ``$RECSYS_INCLUDE``, or else ``include/`` beside ``plugins/``.
    """
    return Path(os.environ.get("RECSYS_INCLUDE") or Path(__file__).parents[3] / "include")


def settings_file() -> Path:
    return include_dir() / "recsys.yaml"


@cache
def load_settings() -> Settings:
    """Read and validate the settings, once in a process.

    Raises SettingsError that names each wrong key, its value and what is allowed.
    """
    if not settings_file().is_file():
        raise SettingsError(
            f"no settings at {settings_file()}: "
            "put recsys.yaml there or set RECSYS_INCLUDE to its folder"
        )
    _refuse_unknown_variables()
    try:
        return Settings()
    except UnreadableSettings as error:
        raise SettingsError(
            f"a {_PREFIX}… variable is not JSON, but its setting is a list or a map: {error}"
        ) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{settings_file()} is not YAML: {error}") from error
    except ValidationError as error:
        lines = "\n".join(f"  {_explained(**details)}" for details in error.errors())
        raise SettingsError(
            f"{settings_file()} or a {_PREFIX}… variable that overrides it is wrong:\n{lines}"
        ) from error


def subsection(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also if it may be null; None for a plain value."""
    types = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    sections = [type_ for type_ in types if isinstance(type_, type) and issubclass(type_, Section)]
    return sections[0] if sections else None


def _refuse_unknown_variables() -> None:
    """Raises SettingsError for ``RECSYS_…__…`` variables that set nothing."""
    known = dict(_paths(Settings))
    # one entry of a map may be set, too: RECSYS_CONFIDENCE__WEIGHTS__VIEW
    entries = tuple(f"{path}." for path, is_section in known.items() if not is_section)
    variables = {
        name: name.removeprefix(_PREFIX).lower().replace("__", ".")
        for name in sorted(os.environ)
        if name.startswith(_PREFIX) and "__" in name
    }
    unknown = [
        f"  {name}: {_unknown(path)}"
        for name, path in variables.items()
        if path not in known and not path.startswith(entries)
    ]
    if unknown:
        raise SettingsError("the environment has unknown settings:\n" + "\n".join(unknown))


def _explained(loc: tuple[int | str, ...], msg: str, type: str, **details: Any) -> str:
    """One line about one error of pydantic."""
    path = ".".join(map(str, loc))
    if type == "extra_forbidden":
        return _unknown(path)
    value = "" if type in ("missing", HIDDEN) or not path else f" (found {details['input']!r})"
    return f"{path or 'together'}: {msg}{value}"


def _unknown(path: str) -> str:
    """What is unknown, and the nearest keys: of the same section if any is near, else of all."""
    paths = [known for known, _ in _paths(Settings)]
    section, dot, key = path.rpartition(".")
    siblings = [known.rpartition(".")[2] for known in paths if known.rpartition(".")[0] == section]
    nearest = [f"{section}{dot}{sibling}" for sibling in get_close_matches(key, siblings)]
    nearest = nearest or get_close_matches(path, paths)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "docs/settings.md lists all"
    return f"unknown setting {path}; {hint}"


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted path of each key and section, and whether it is a section."""
    for name, field in model.model_fields.items():
        inner = subsection(field.annotation)
        yield prefix + name, inner is not None
        if inner:
            yield from _paths(inner, f"{prefix}{name}.")
