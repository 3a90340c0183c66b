"""The sections of the settings, with the meaning, the bounds and the default of each key.

A docstring explains the key above it. ``make settings`` writes `include/recsys.yaml` and
`docs/settings.md` from these classes. No secret is ever here: secrets live in Airflow connections.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

# The type of errors whose message must not show the value, because it may be a secret.
HIDDEN = "hidden"
_PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*:[^/?#\s]*@", re.IGNORECASE)
_QUERY_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S*[?&](sig|token|key|secret|password)=", re.I)
_AZURE_KEY = re.compile(r"\b(AccountKey|SharedAccessKey|SharedAccessSignature)=", re.I)
# abfs://container@account.dfs.core.windows.net/folder; anything else before an @ may be a key
_CONTAINER = re.compile(r"[a-z0-9$-]{3,63}@[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]+)?(/.*)?")


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


def _no_secret(value: Any) -> Any:
    """Raises for a text, or a text in a list, that holds a password, a key or a signature."""
    if isinstance(value, list | tuple):
        for inner in value:
            _no_secret(inner)
    elif isinstance(value, str) and (
        _PASSWORD_IN_URL.match(value) or _QUERY_IN_URL.match(value) or _AZURE_KEY.search(value)
    ):
        raise PydanticCustomError(
            HIDDEN, "must hold no password, key or signature: they belong in an Airflow connection"
        )
    return value


def _container(url: str) -> str:
    authority = url.partition("://")[2]
    if "@" in authority.partition("/")[0] and not _CONTAINER.fullmatch(authority):
        raise PydanticCustomError(
            HIDDEN,
            "must hold no key before an @: it belongs in an Airflow connection. "
            "Allowed is abfs://container@account.dfs.core.windows.net/folder",
        )
    return url


def _no_uri(conn_id: str) -> str:
    if "://" in conn_id:
        raise PydanticCustomError(
            HIDDEN, "must be the id of an Airflow connection, not a URL: put that into a connection"
        )
    return conn_id


Share = Annotated[float, Field(ge=0, le=1)]
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
# 100 years and a week; longer spans would leave the calendar, or mean nothing
Days = Annotated[int, Field(ge=1, le=36_500)]
Seconds = Annotated[int, Field(ge=1, le=604_800)]
ConnectionId = Annotated[
    str, Field(min_length=1, json_schema_extra={"format": "text"}), AfterValidator(_no_uri)
]
FactorFromOne = Annotated[float, Field(ge=1)]
RegularExpression = Annotated[
    str, AfterValidator(_compiles), Field(json_schema_extra={"format": "regular expression"})
]
_URL = {"format": "URL"}
HttpUrl = Annotated[str, Field(pattern=r"^https?://[\w.:-]+$", json_schema_extra=_URL)]
StorageUrl = Annotated[
    str,
    Field(pattern=r"^(file:///|(abfs|abfss|az)://)[\w.~/+:@-]+$", json_schema_extra=_URL),
    AfterValidator(_container),
]
StagingUrl = Annotated[
    str,
    Field(pattern=r"^(file:///|(gs|abfs|abfss|az)://)[\w.~/+:@-]+$", json_schema_extra=_URL),
    AfterValidator(_container),
]
EventType = Literal["view", "wishlist", "cart", "checkout", "purchase"]
CONVERSIONS: tuple[EventType, ...] = ("cart", "checkout", "purchase")
EventTypes = Annotated[tuple[EventType, ...], Field(min_length=1)]
Cutoffs = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_ascending)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _holds_no_secret(cls, value: Any) -> Any:
        return _no_secret(value)


class StorageSettings(Section):
    """The blob storage that holds deliveries, history, model versions and reports."""

    root: StorageUrl
    """Where everything is stored: `file:///folder` or `abfs://container/folder`."""

    conn_id: ConnectionId = "recsys_blob"
    """The Airflow connection of the Azure storage account, see docs/how-to/azure.md. Not needed for
    `file://`."""

    raw_retention_days: Days = 90
    """Deliveries, the results of the cleaning steps, quarantine and jobs are deleted when they are
    older than this many days, because they hold personal data."""


class HistorySettings(Section):
    """The Delta table of clean events."""

    retention_days: Days = 400
    """Days older than this many days are deleted from the history. Set at least
    `confidence.window_days` + `source.lookback_days`."""


class SourceSettings(Section):
    """The production database that events are extracted from."""

    conn_id: ConnectionId = "recsys_db"
    """The Airflow connection of the database. Give it an account that may only read."""

    lookback_days: Annotated[int, Field(ge=0, le=30)] = 3
    """A run also reads this many days before its own again, so that late and corrected rows are not
    lost. A backfill reads only its own day."""

    catch_up_days: Annotated[int, Field(ge=0, le=90)] = 14
    """A run also reads the days that the history lacks among this many before its own, such as
    those of nights on which Airflow was down. Empty days and days before the first one known are
    not lacking. A backfill, or a run with `lookback_days` in its trigger form, reads none."""

    min_kept_share: Share = 0.9
    """A run is refused if a day that was read before would keep a smaller share than this of its
    rows, or the catalogue of its items: in the database, or after cleaning. Shops delete few rows
    later, and a purge or a wrong filter takes more. `accept_reason` in the trigger form accepts
    the run."""

    slice_hours: Annotated[int, Field(ge=1, le=24)] = 1
    """How many hours of events one query reads. Each query is a short transaction of its own."""

    connections: Annotated[int, Field(ge=1, le=8)] = 2
    """How many queries run at the same time, each on its own connection. 1 puts the least load on
    the database."""

    statement_timeout_s: Seconds = 600
    """The database cancels a query that takes longer than this many seconds."""


class CrawlerSettings(Section):
    """Robots that say so in their user agent."""

    allow: tuple[RegularExpression, ...] = ()
    """Regular expressions of user agents that are never crawlers, even if the lists of known
    crawlers have them. For example your own app, or a monitor whose events you want to keep."""


class BotSettings(Section):
    """Robots that do not say so, found by a user's behaviour on one day. A user without a purchase
    on that day who shows at least `min_signals` of six signals is a bot. The keys below explain
    five signals. The sixth, `no_conversions`, means that the user put nothing into a cart, checked
    out nothing and bought nothing. In the signals, rows with the same event time count as one
    event, because a basket has many rows."""

    min_events: PositiveInt = 100
    """Applied only to users with at least this many rows on that day."""

    max_events_per_minute: PositiveInt = 20
    """The signal `rate`: more events than this in the user's busiest minute."""

    max_events_per_day: PositiveInt = 1000
    """The signal `rate` as well: more events than this on the day."""

    max_items: PositiveInt = 250
    """The signal `breadth`: more different items than this on the day."""

    max_hours_active: Annotated[int, Field(ge=1, le=24)] = 18
    """The signal `hours`: events in more than this many of the day's 24 clock hours."""

    max_visit_hours: Annotated[float, Field(gt=0, le=24)] = 8.0
    """The signal `visit`: active for more hours than this without a pause of 30 minutes."""

    min_gap_spread: PositiveFloat = 0.6
    """The signal `regular_gaps`: the interquartile range of the gaps between events, divided by the
    median gap, is below this. People are typically above 1. Gaps of over 30 minutes do not
    count."""

    min_signals: Annotated[int, Field(ge=1, le=6)] = 2
    """How many of the six signals make a bot."""

    pseudo_user_share: ShareAboveZero = 0.2
    """An id with at least this share of a day's events is treated as a placeholder ("web", "app")
    and rejected as pseudo_user, even if it buys. Not applied below 50 users a day, nor to ids with
    fewer than 500 events that day. Words such as "guest" and "0" are rejected before, as nobody."""


class SlowBotSettings(Section):
    """Bots that show only over weeks. `build_matrix` looks for them in all days of the window
    (`confidence.window_days`). Their rows stay in the history, but the model does not learn from
    them. A slow bot is a user without a cart, checkout or purchase in the window who shows at
    least `min_signals` of three signals."""

    min_days: Annotated[int, Field(ge=2, le=36_500)] = 14
    """Applied only to users with events on at least this many days."""

    min_events: PositiveInt = 500
    """Applied only to users with at least this many events."""

    max_items: PositiveInt = 5000
    """The signal `breadth`: more different items than this."""

    max_active_share: Share = 0.9
    """The signal `every_day`: events on a larger share than this of the days from the user's first
    day to the last."""

    min_daily_variation: PositiveFloat = 0.25
    """The signal `steady`: the standard deviation of the user's events a day, divided by the mean,
    is below this."""

    min_signals: Annotated[int, Field(ge=1, le=3)] = 2
    """How many of the three signals make a slow bot."""

    pseudo_user_share: ShareAboveZero = 0.05
    """An id with at least this share of all events is left out as pseudo_user, even if it buys.
    Not applied below 50 users, nor to ids with events on fewer than `min_days` days."""


class StaffSettings(Section):
    """The shop's own people, networks and test accounts. Their rows are rejected."""

    user_ids: tuple[str, ...] = ()
    """Ids of the users who work for the shop."""

    roles: tuple[str, ...] = ("admin", "staff")
    """Values of the column `role` that mean staff. Upper and lower case are the same."""

    email_domains: tuple[Annotated[str, Field(pattern=r"^[^@\s]+$")], ...] = ()
    """The e-mail domains of the company, without the @. List each subdomain, too."""

    networks: tuple[IPvAnyNetwork, ...] = ()
    """The networks of the company, in CIDR notation: 10.0.0.0/8."""

    test_account_pattern: RegularExpression | None = None
    """A regular expression. An account whose e-mail address contains it is a test account. null: no
    test accounts."""


class CleaningSettings(Section):
    """The cleaning steps, from `align_schema` to `filter_staff`."""

    contract: str = "contract.yaml"
    """The data contract, a file in the folder of `recsys.yaml`."""

    max_rejected_share: Share = 0.5
    """A cleaning step that rejects a larger share of its rows fails, and the day does not reach
    the history."""

    crawlers: CrawlerSettings = CrawlerSettings()
    bots: BotSettings = BotSettings()
    slow_bots: SlowBotSettings = SlowBotSettings()
    staff: StaffSettings = StaffSettings()


class Bm25Settings(Section):
    """The parameters of BM25."""

    k1: PositiveFloat
    """A pair's weight saturates at k1 + 1. The smaller k1, the sooner."""

    b: Share
    """How strongly a pair's weight falls with the popularity of the item: 0 not at all, 1 in
    proportion to the item's summed weight."""


class ConfidenceSettings(Section):
    """How events become the user–item matrix that a model learns from."""

    preset: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    """A preset: the name of a file in the folder `presets`, without .yaml. Its values apply only to
    keys that are left out here and in the environment, so delete those keys here. Shipped:
    retail_demo_store, recency_bm25. null: no preset."""

    window_days: Days = 365
    """How many days a model learns from. The last one is the run's day."""

    weights: Annotated[dict[EventType, PositiveFloat], Field(min_length=1)] = {
        "view": 1, "wishlist": 2, "cart": 3, "checkout": 3, "purchase": 5
    }  # fmt: skip
    """What one event of each type counts. Event types without a weight do not enter the matrix."""

    half_life_days: PositiveFloat | None = 90.0
    """The age in days at which an event counts half. null: age does not matter."""

    repeat_decay: ShareAboveZero = 1.0
    """The n-th event of one type by one user with one item, counted from the newest, counts
    repeat_decay^(n−1) of its weight. 1: repeated events count as much as the first."""

    bm25: Bm25Settings | None = None
    """BM25 as in the package implicit, for example {k1: 1.2, b: 0.3}: repeated events count less
    and less, and so do popular items and users with many items. null: log1p, see `alpha`."""

    alpha: PositiveFloat = 16.0
    """confidence = 1 + alpha·log1p(weight) (Hu, Koren & Volinsky 2008, eq. 6), or with bm25
    1 + alpha·bm25(weight)."""

    min_items_per_user: PositiveInt = 1
    """Users with fewer different items than this are left out. This minimum and the next one are
    counted once, before anything is left out."""

    min_users_per_item: PositiveInt = 1
    """Items with fewer different users than this are left out, and the model never recommends
    them."""

    buyers_only: bool = False
    """Learn only from users who bought something within the window."""


class TrainingSettings(Section):
    """The factorisation of the user–item matrix by ALS."""

    factors: PositiveInt = 64
    """How many numbers describe a user or an item. Time and memory grow with this number."""

    solver: Literal["auto", "gpu", "cpu", "implicit"] = "auto"
    """The code that does the sweeps. auto: gpu if the worker has a GPU, otherwise cpu. implicit:
    the package of that name, slower, for cross-checks; it needs `regularization_exponent: 0`."""

    iterations: PositiveInt = 15
    """How many sweeps a cold start does."""

    warm_iterations: PositiveInt = 2
    """How many sweeps a warm start does. It begins with the live version's factors."""

    cold_every_days: Days = 7
    """Fit from scratch at least every this many days. 1: always."""

    refit_iterations: PositiveInt = 3
    """How many sweeps the refit does. It adds the run's own day to the evaluated model before the
    model is served."""

    regularization: PositiveFloat = 0.1
    """The L2 penalty λ, as a share of the average confidence of a user and of an item. See
    docs/explanation/training.md."""

    regularization_exponent: Share = 1.0
    """How strongly L2 grows with a row's total confidence: 0 not at all, 1 in proportion (ν in
    Rendle et al. 2021)."""

    max_gpu_memory_gib: PositiveFloat | None = None
    """The training uses at most this many GiB of GPU memory. null: 80 % of what is free."""

    seed: Annotated[int, Field(ge=0)] = 1
    """The seed of the first factors, of the bootstrap, and of the search of recsys_tune."""

    @model_validator(mode="after")
    def _implicit_regularises_all_rows_alike(self) -> Self:
        if self.solver == "implicit" and self.regularization_exponent:
            raise ValueError(
                "solver implicit regularises all rows alike: "
                "set regularization_exponent to 0 as well"
            )
        return self


class SshSettings(Section):
    """A machine of yours that is reached by SSH, for `launcher: ssh`."""

    conn_id: ConnectionId = "recsys_worker"
    """The Airflow connection of type ssh. Its extra must contain host_key, unless the machine is
    in the known_hosts file of Airflow's user."""

    python: str = "python3"
    """The Python on that machine into which recsys-ops[worker] is installed."""

    lost_after_s: Seconds = 300
    """If the machine cannot be reached for this many seconds, the job is lost and the task is
    retried."""


class GceSettings(Section):
    """A machine on Google Compute Engine, see docs/how-to/compute-engine.md."""

    project: str
    """The Google Cloud project of the machine."""

    zone: str
    """The zone of the machine, for example europe-west4-a."""

    instance: str
    """The name of the machine."""

    start_timeout_s: Seconds = 600
    """How many seconds the machine may take to start."""

    endpoint: HttpUrl = "https://compute.googleapis.com"
    """The address of the Compute Engine API."""


class VertexSettings(Section):
    """A job on Vertex AI, see docs/how-to/vertex-ai.md."""

    project: str
    """The Google Cloud project of the job."""

    region: str
    """The region of the job, for example europe-west4."""

    image: str
    """The container image of the worker, built from Dockerfile.worker."""

    service_account: str
    """The e-mail address of the service account that the job runs as."""

    machine_type: str = "g2-standard-12"
    """The type of the machine."""

    accelerator_type: str = "NVIDIA_L4"
    """The type of the machine's GPUs."""

    accelerator_count: PositiveInt = 1
    """How many GPUs the machine has."""

    spot: bool = False
    """Use a Spot machine: cheaper, but Google may stop it at any time. A preempted job resumes
    from its checkpoint."""

    endpoint: HttpUrl | None = None
    """The address of the Vertex AI API. null: the one of the region."""


class WorkerSettings(Section):
    """The machine that trains, see docs/explanation/worker.md."""

    launcher: Literal["local", "ssh", "vertex"] = "local"
    """Where a job runs. local: a process on Airflow's machine. ssh: a machine of yours. vertex: a
    job on Vertex AI."""

    timeout_s: Seconds = 7200
    """A job that takes longer than this many seconds is ended, and the task fails."""

    price_per_hour: PositiveFloat | None = None
    """What an hour of the machine costs, in your currency. A version's manifest then says what its
    training cost. null: the manifest has no cost."""

    staging_url: StagingUrl | None = None
    """`gs://bucket/folder` or `abfs://container/folder`, for a worker that cannot read
    `storage.root`: a job's files are copied there, its results are copied back, and the copies are
    deleted. null: the worker reads `storage.root`."""

    google_conn_id: ConnectionId = "google_cloud_default"
    """The Airflow connection of type google_cloud_platform, for `gs://` in `staging_url`, for `gce`
    and for `vertex`. For `abfs://` the connection is `storage.conn_id`."""

    ssh: SshSettings = SshSettings()

    gce: GceSettings | None = None
    """The machine of `launcher: ssh`, if it is on Google Compute Engine: it is started before the
    training and stopped afterwards, also after a failure. null: none."""

    vertex: VertexSettings | None = None
    """The job of `launcher: vertex`. null: none."""


class EvaluationSettings(Section):
    """How versions are compared, see docs/explanation/quality.md."""

    cutoffs: Cutoffs = (3, 10, 20)
    """The cut-offs K of the metrics, ascending. The gate decides on the last one."""

    events: EventTypes = ("purchase", "cart")
    """The types of events in the hold-out that count as "liked"."""

    exclude_seen: bool = True
    """Leave out the items that a user already had events with before the hold-out."""

    protocol: Literal["next_day", "random", "leave_last_out"] = "next_day"
    """The hold-out. next_day: what users liked on the run's day, for a model of the days before.
    random: a share of all liked user–item pairs of the window. leave_last_out: what each user liked
    last. With the last two no champion can be compared, because it learned from the hold-out."""

    random_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share of the pairs that the protocol random holds out."""


class GateSettings(Section):
    """What a challenger must satisfy to be served, see docs/explanation/gate.md."""

    max_drop: Share = 0.05
    """Not blessed if NDCG is lower than the champion's by more than this share, unless the
    difference may be chance."""

    max_drop_reference: Share = 0.08
    """The same against the version that was live 30 days ago, so that quality cannot decline in
    small steps."""

    min_users: PositiveInt = 50
    """Not blessed if fewer users than this were evaluated."""

    min_refit_overlap: Share = 0.4
    """The refit must keep at least this share of the lists of the evaluated model."""

    max_refit_change: FactorFromOne = 2.0
    """The refit may change the number of different items in the lists, and the length of the
    factors, by at most this factor."""

    max_day_change: FactorFromOne = 3.0
    """Each of the day's rows, users and items must lie between 1/x and x times its 28-day
    median."""

    max_ratio_change: FactorFromOne = 1.3
    """The same for two ratios: rows per user and rows per user–item pair. Sales and weekends hardly
    change them, but robots and doubled rows do. If one of those 28 days deviated from the median by
    a factor s, the limit is raised to s^1.5."""

    max_share_change: Share = 0.1
    """The share of rows rejected for their values, the share rejected as crawlers and bots, and in
    each column the share of rows without a value, may each differ from its 28-day median by at most
    this much. If the second most unusual of those 28 days differed by d, the limit is raised to
    1.5 d. The shares of users with a full list and of rows whose item the catalogue has may fall,
    and that of items without a figure of stock may rise, by at most as much; the share of the
    window's rows by half of it."""

    max_conversions_rejected: Share = 0.1
    """The filters may reject at most this share of the day's carts, checkouts and purchases, as
    crawlers', bots' and staff's. Robots seldom buy, so a larger share is mostly people's."""

    min_window_share: Share = 0.8
    """The window must have at least this share of the rows that the champion's window had."""

    min_eligible_share: Share = 0.7
    """The catalogue must have at least this share of the eligible items that it had on the
    champion's day."""

    min_known_share: Share = 0.5
    """At least this share of the day's rows must be of items that the catalogue has."""

    max_lost_lists: Share = 0.2
    """At most this share of the live lists may have lost over 30 % of their items because the
    catalogue does not offer them any more."""

    allow_first_deployment: bool = False
    """The first version has no champion to be compared with. Set this to true for one run to let it
    go live."""

    when_not_blessed: Literal["fail", "skip"] = "fail"
    """What happens to a run whose version is not blessed. fail: the task gate fails. skip: the
    tasks after it are skipped. The alert is sent either way."""

    approval: bool = False
    """A person must approve each blessed version before it goes live. The task `approve` waits for
    the approval in Airflow's UI, for at most 10 hours."""


SearchedName = Literal[
    "training.factors",
    "training.iterations",
    "training.regularization",
    "training.regularization_exponent",
    "confidence.alpha",
    "confidence.half_life_days",
]


class SearchRange(Section):
    """The values of one setting that are searched: ``low`` to ``high``, or ``choices``."""

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
    """The weekly search for better settings, the DAG recsys_tune. A trial is one training with
    settings that the search chose, see docs/explanation/tuning.md."""

    adopt: bool = False
    """Let recsys_retrain train its challengers with the newest proposal of recsys_tune. They still
    have to pass the gate, and a proposal whose first challenger is not blessed is dropped. false:
    the log of the task `propose` has the lines to copy into this file."""

    holdout_days: Days = 3
    """How many days a trial is evaluated on: the run's day and those before it."""

    batches: PositiveInt = 4
    """How many batches of trials run, one after another. The results of a batch guide the next."""

    batch_size: PositiveInt = 3
    """How many trials a batch has. The very first trial uses the settings as they are."""

    parallel_trials: PositiveInt = 1
    """How many trials run at the same time. 1 if they share a machine; batch_size if each gets its
    own (vertex)."""

    # The default must stay empty: given names are merged into it, so that no name of a longer
    # default could be left out.
    search: dict[SearchedName, SearchRange] = {}
    """Search space; settings not listed keep their value. {low: 5, high: 30} searches between two
    numbers, with log: true on a logarithmic scale; {choices: [5, 10]} searches among these.
    training.regularization_exponent may be searched, too."""


class ModelsSettings(Section):
    """How long model versions are kept. The live version, the one before it, pinned versions
    (recsys_ops models pin) and those that the gate compares with are never deleted. The metrics and
    the verdict of every version are never deleted either."""

    keep_newest: PositiveInt = 14
    """How many of the newest versions are always kept."""

    keep_days: Days = 90
    """All other versions are deleted when they are older than this many days."""


class BoughtTogetherSettings(Section):
    """Lists of items that are bought together, see docs/explanation/lists.md."""

    events: EventTypes = ("purchase",)
    """The types of events that make baskets."""

    session_gap_hours: Annotated[int, Field(ge=1, le=8760)] = 12
    """A pause of this many hours ends a basket. Events of one user with shorter pauses between them
    are one basket, also if their event ids differ."""

    min_support: PositiveInt = 3
    """At least this many baskets must contain both items."""

    half_life_days: PositiveFloat | None = 90
    """The age in days at which a basket counts half. null: age does not matter."""

    rank_by: Literal["weight", "lift"] = "weight"
    """weight: first the items that are most often bought with this one. lift: first those that are
    bought with this one more often than without it."""


class ListsSettings(Section):
    """The recommendation lists of a version. A change of this section makes a new version."""

    top_n: PositiveInt = 20
    """How many items a list has."""

    exclude_seen: bool = True
    """Leave out of a user's list the items that the user had events with."""

    exclude_categories: tuple[str, ...] = ()
    """Categories of the catalogue from which nothing is recommended."""

    sell_unmanaged_stock: bool = True
    """An item whose stock is null in the catalogue, because the shop does not count it, is in
    stock. false: it is sold out."""

    max_per_category: PositiveInt | None = None
    """The category cap: a user's list has at most this many items of one category. null: no
    cap."""

    pinned_items: tuple[str, ...] = ()
    """Items that stand first in every user's list and in the popular list, in this order, while
    they are eligible."""

    trending_days: Annotated[int, Field(ge=1, le=14)] = 3
    """The list of trending items compares each item's visitors in this many days with those in the
    28 days before."""

    bought_together: BoughtTogetherSettings = BoughtTogetherSettings()


class ApiSettings(Section):
    """The lookup service, started by `python -m recsys_ops.serving.api`."""

    host: str = "127.0.0.1"
    """The address that the service listens on."""

    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    """The port that the service listens on."""

    require_key: bool = False
    """Answer only requests whose header X-API-Key has the value of the environment variable
    RECSYS_API_KEY."""

    requests_per_minute: PositiveInt | None = None
    """How many requests a minute one address, or one key, may make. null: any number."""


class ServingSettings(Section):
    """Where lists are published for the shop."""

    conn_id: ConnectionId = "recsys_redis"
    """The Airflow connection of the Redis that the shop reads."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "recsys"
    """The first part of every Redis key."""

    buckets: Annotated[int, Field(ge=1, le=65536)] = 4096
    """How many Redis hashes the lists are spread over. Readers must use the same number; to change
    it, change the prefix as well."""

    encoding: Literal["text", "int32"] = "text"
    """How lists are stored. text: readable, for any item ids. int32: a fifth less memory, if all
    item ids are whole numbers below 2,147,483,648."""

    api: ApiSettings = ApiSettings()


class MlflowSettings(Section):
    """A mirror of every version on an MLflow server, as a run and as a registered model."""

    conn_id: ConnectionId | None = None
    """The Airflow connection of type HTTP of the MLflow server. null: no mirror; storage has
    everything."""

    experiment: Annotated[str, Field(pattern=r"^[\w .-]+$")] = "recsys"
    """The name of the experiment and of the registered model. Its alias `champion` is the live
    version."""


class AlertSettings(Section):
    """Messages about failed tasks and versions that are not blessed."""

    conn_id: ConnectionId | None = None
    """The Airflow connection of type HTTP that alerts are sent to, as POST requests with JSON.
    null: alerts are only in the log."""
