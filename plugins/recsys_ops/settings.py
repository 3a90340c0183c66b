"""The settings: ``include/recsys.yaml`` plus ``RECSYS_<SECTION>__<KEY>`` environment variables, validated once.

Every key is explained in the YAML file. No secret is ever here: those live in Airflow connections.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableSettings

from recsys_ops.errors import SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


EventType = Literal["view", "wishlist", "cart", "checkout", "purchase"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("must ascend")
    return values


Pattern = Annotated[str, AfterValidator(_compiles)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[\w.:-]+$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(Section):
    root: Annotated[str, Field(pattern=r"^(file:///|(abfs|abfss|az)://)[\w.~/+:@-]+$")]
    conn_id: str = "recsys_blob"
    raw_retention_days: Positive = 90


class HistorySettings(Section):
    retention_days: Positive = 400


class SourceSettings(Section):
    conn_id: str = "recsys_db"
    lookback_days: Annotated[int, Field(ge=0, le=30)] = 3
    slice_hours: Annotated[int, Field(ge=1, le=24)] = 1
    connections: Annotated[int, Field(ge=1, le=8)] = 2
    statement_timeout_s: Positive = 600


class CrawlerSettings(Section):
    allow: tuple[Pattern, ...] = ()


class SlowBotSettings(Section):
    min_days: Annotated[int, Field(ge=2)] = 14
    min_events: Positive = 500
    max_items: Positive = 5000
    max_active_share: Share = 0.9
    min_daily_variation: Annotated[float, Field(gt=0)] = 0.25
    min_signals: Annotated[int, Field(ge=1, le=3)] = 2
    pseudo_user_share: Annotated[float, Field(gt=0, le=1)] = 0.05


class BotSettings(Section):
    min_events: Positive = 100
    max_events_per_minute: Positive = 20
    max_events_per_day: Positive = 1000
    max_items: Positive = 250
    max_hours_active: Annotated[int, Field(ge=1, le=24)] = 18
    max_visit_hours: Annotated[float, Field(gt=0, le=24)] = 8.0
    min_gap_spread: Annotated[float, Field(gt=0)] = 0.6
    min_signals: Annotated[int, Field(ge=1, le=6)] = 2
    pseudo_user_share: Annotated[float, Field(gt=0, le=1)] = 0.2


class StaffSettings(Section):
    user_ids: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("admin", "staff")
    email_domains: tuple[Annotated[str, Field(pattern=r"^[^@\s]+$")], ...] = ()
    networks: tuple[IPvAnyNetwork, ...] = ()
    test_account_pattern: Pattern | None = None


class CleaningSettings(Section):
    contract: str = "contract.yaml"
    max_rejected_share: Share = 0.5
    crawlers: CrawlerSettings = CrawlerSettings()
    bots: BotSettings = BotSettings()
    slow_bots: SlowBotSettings = SlowBotSettings()
    staff: StaffSettings = StaffSettings()


class Bm25Settings(Section):
    k1: Annotated[float, Field(gt=0)]
    b: Share


class ConfidenceSettings(Section):
    preset: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    window_days: Positive = 365
    weights: Annotated[dict[EventType, Annotated[float, Field(gt=0)]], Field(min_length=1)] = {
        "view": 1, "wishlist": 2, "cart": 3, "checkout": 3, "purchase": 5
    }  # fmt: skip
    half_life_days: Annotated[float, Field(gt=0)] | None = 90.0
    repeat_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    bm25: Bm25Settings | None = None
    alpha: Annotated[float, Field(gt=0)] = 16.0
    min_items_per_user: Positive = 1
    min_users_per_item: Positive = 1
    buyers_only: bool = False


class TrainingSettings(Section):
    factors: Positive = 64
    solver: Literal["auto", "gpu", "cpu", "implicit"] = "auto"
    iterations: Positive = 15
    warm_iterations: Positive = 2
    cold_every_days: Positive = 7
    refit_iterations: Positive = 3
    regularization: Annotated[float, Field(gt=0)] = 0.1
    regularization_exponent: Share = 1.0
    max_gpu_memory_gib: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _implicit_treats_rows_alike(self) -> Self:
        if self.solver == "implicit" and self.regularization_exponent:
            raise ValueError(
                "solver implicit regularises all rows alike: set regularization_exponent to 0 as well"
            )
        return self


class SshSettings(Section):
    conn_id: str = "recsys_worker"
    python: str = "python3"
    lost_after_s: Positive = 300


class GceSettings(Section):
    project: str
    zone: str
    instance: str
    start_timeout_s: Positive = 600
    endpoint: HttpUrl = "https://compute.googleapis.com"


class VertexSettings(Section):
    project: str
    region: str
    image: str
    service_account: str
    machine_type: str = "g2-standard-12"
    accelerator_type: str = "NVIDIA_L4"
    accelerator_count: Positive = 1
    spot: bool = False
    endpoint: HttpUrl | None = None


class WorkerSettings(Section):
    launcher: Literal["local", "ssh", "vertex"] = "local"
    timeout_s: Positive = 7200
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    staging_url: (
        Annotated[str, Field(pattern=r"^(file:///|(gs|abfs|abfss|az)://)[\w.~/+:@-]+$")] | None
    ) = None
    google_conn_id: str = "google_cloud_default"
    ssh: SshSettings = SshSettings()
    gce: GceSettings | None = None
    vertex: VertexSettings | None = None


class EvaluationSettings(Section):
    cutoffs: Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(_ascending)] = (
        3,
        10,
        20,
    )
    events: Annotated[tuple[EventType, ...], Field(min_length=1)] = ("purchase", "cart")
    exclude_seen: bool = True
    protocol: Literal["next_day", "random", "leave_last_out"] = "next_day"
    random_share: Annotated[float, Field(gt=0, lt=1)] = 0.2


AtLeastOne = Annotated[float, Field(ge=1)]


class GateSettings(Section):
    max_drop: Share = 0.05
    max_drop_reference: Share = 0.08
    min_users: Positive = 50
    min_refit_overlap: Share = 0.4
    max_refit_change: AtLeastOne = 2.0
    max_day_change: AtLeastOne = 3.0
    max_ratio_change: AtLeastOne = 1.3
    max_share_change: Share = 0.1
    min_window_share: Share = 0.8
    allow_first_deployment: bool = False
    when_not_blessed: Literal["fail", "skip"] = "fail"
    approval: bool = False


SearchedName = Literal[
    "training.factors",
    "training.iterations",
    "training.regularization",
    "training.regularization_exponent",
    "confidence.alpha",
    "confidence.half_life_days",
]


class SearchRange(Section):
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[int | float | None, ...] = ()

    @model_validator(mode="after")
    def _bounds_or_choices(self) -> Self:
        if self.choices:
            if (self.low, self.high, self.log) != (None, None, False):
                raise ValueError("give low and high, or choices, not both")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("give low and a larger high, or choices")
        elif self.log and self.low <= 0:
            raise ValueError("with log, low must be above 0")
        return self

    @property
    def ends(self) -> tuple[int | float | None, ...]:
        return self.choices or (self.low, self.high)


class TuningSettings(Section):
    adopt: bool = False
    holdout_days: Positive = 3
    batches: Positive = 4
    batch_size: Positive = 3
    parallel_trials: Positive = 1
    # what is given is merged into a default: with another one no name could be left out
    search: dict[SearchedName, SearchRange] = {}


class ModelsSettings(Section):
    keep_newest: Positive = 14
    keep_days: Positive = 90


class BoughtTogetherSettings(Section):
    """What makes items bought together, see `recsys_ops.lists.bought_together`."""

    events: Annotated[tuple[EventType, ...], Field(min_length=1)] = ("purchase",)
    session_gap_hours: Positive = 12
    min_support: Positive = 3
    half_life_days: Annotated[float, Field(gt=0)] | None = 90
    rank_by: Literal["weight", "lift"] = "weight"


class ListsSettings(Section):
    """What a version's lists hold; all of it names the version."""

    top_n: Positive = 20
    exclude_seen: bool = True
    exclude_categories: tuple[str, ...] = ()
    max_per_category: Positive | None = None
    pinned_items: tuple[str, ...] = ()
    trending_days: Annotated[int, Field(ge=1, le=14)] = 3
    bought_together: BoughtTogetherSettings = BoughtTogetherSettings()


class ApiSettings(Section):
    """The look-up over HTTP, see `recsys_ops.serving.api`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    require_key: bool = False
    requests_per_minute: Positive | None = None


class ServingSettings(Section):
    conn_id: str = "recsys_redis"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "recsys"
    buckets: Annotated[int, Field(ge=1, le=65536)] = 4096
    encoding: Literal["text", "int32"] = "text"
    api: ApiSettings = ApiSettings()


class MlflowSettings(Section):
    conn_id: str | None = None
    experiment: Annotated[str, Field(pattern=r"^[\w .-]+$")] = "recsys"


class AlertSettings(Section):
    conn_id: str | None = None


class Preset(PydanticBaseSettingsSource):
    """The values of the file that ``confidence.preset`` names, for each key that is not given elsewhere.

    Only whole keys are filled in: `weights` that are given are not completed by the preset's.
    Raises SettingsError when there is no such file, or when it would change nothing.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        confidence = self.current_state.get("confidence")
        name = confidence.get("preset") if isinstance(confidence, dict) else None
        if not isinstance(name, str):
            return {}
        folder = include_dir() / "presets"
        presets = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if name not in presets:
            raise SettingsError(
                f"confidence.preset is {name!r}, but {folder} has no {name}.yaml; "
                f"it has these presets: {', '.join(presets) or 'none'}"
            )
        preset = yaml.safe_load(presets[name].read_text())
        missing = {
            section: {
                key: value
                for key, value in values.items()
                if key not in (self.current_state.get(section) or {})
            }
            for section, values in preset.items()
        }
        if not any(missing.values()):
            keys = ", ".join(f"{section}.{key}" for section in preset for key in preset[section])
            raise SettingsError(
                f"confidence.preset {name} changes nothing, for {settings_file()} sets all its keys: "
                f"delete those that the preset shall set, of {keys}"
            )
        return missing


class Settings(BaseSettings):
    """All settings, frozen. Pass on the smallest section the callee needs."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RECSYS_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
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
                f"history.retention_days = {self.history.retention_days} is less than confidence.window_days + "
                f"source.lookback_days = {needed}: models would learn from days that are gone"
            )
        return self

    @model_validator(mode="after")
    def _the_worker_is_described(self) -> Self:
        if self.worker.launcher == "vertex":
            if self.worker.vertex is None:
                raise ValueError(
                    "worker.launcher is vertex, but there is no worker.vertex: give at least its project, region, image "
                    "and service_account"
                )
            if not (self.worker.staging_url or "").startswith("gs://"):
                raise ValueError(
                    "worker.launcher is vertex, but worker.staging_url is no gs://bucket/folder: a job on Vertex AI has "
                    "no other storage that it may read without a secret"
                )
        if self.worker.gce and self.worker.launcher != "ssh":
            raise ValueError(
                f"worker.gce names a machine to start, but worker.launcher is {self.worker.launcher}, not ssh"
            )
        return self

    @model_validator(mode="after")
    def _what_is_searched_is_allowed(self) -> Self:
        for name, searched in self.tuning.search.items():
            section, _, key = name.partition(".")
            current = getattr(self, section)
            for value in searched.ends:
                try:
                    type(current).model_validate({**dict(current), key: value})
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
        return env_settings, file, Preset(settings_cls)


def include_dir() -> Path:
    """The folder of ``recsys.yaml``, ``contract.yaml`` and ``sql/``: ``$RECSYS_INCLUDE`` or ``include/`` beside ``plugins/``."""
    return Path(os.environ.get("RECSYS_INCLUDE") or Path(__file__).parents[2] / "include")


def settings_file() -> Path:
    return include_dir() / "recsys.yaml"


@cache
def load_settings() -> Settings:
    """Read and validate the settings, once a process.

    Raises SettingsError naming each wrong key, what it holds and what is allowed.
    """
    if not settings_file().is_file():
        raise SettingsError(
            f"no settings at {settings_file()}: put recsys.yaml there or set RECSYS_INCLUDE to its folder"
        )
    sections = {name.upper() for name in Settings.model_fields}
    unknown = [
        name
        for name in os.environ
        if name.startswith("RECSYS_") and "__" in name and name[7:].split("__")[0] not in sections
    ]
    if unknown:
        raise SettingsError(
            f"the environment has {', '.join(unknown)}, but sections are {', '.join(sorted(sections))}"
        )
    try:
        return Settings()
    except UnreadableSettings as error:
        raise SettingsError(
            f"a RECSYS_… variable is not JSON where a list or a map is wanted: {error}"
        ) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{settings_file()} is not YAML: {error}") from error
    except ValidationError as error:
        lines = "\n".join(
            f"  {'.'.join(map(str, e['loc'])) or 'together'}: {e['msg']}"
            + ("" if e["type"] == "missing" or not e["loc"] else f" (found {e['input']!r})")
            for e in error.errors()
        )
        raise SettingsError(
            f"{settings_file()} or its RECSYS_… overrides are wrong:\n{lines}"
        ) from error
