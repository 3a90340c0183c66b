"""The data contract: a delivery's columns, their names, and the values that they may hold."""

import hashlib
import re
import zoneinfo
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys_ops.cleaning.time_formats import check_unambiguous, time_format
from recsys_ops.errors import ContractError
from recsys_ops.settings import EventType

TIME = pl.Datetime("us", "UTC")
# the canonical event frame, and its columns that may hold nulls
SCHEMA: dict[str, pl.DataType] = {
    "row_id": pl.String(),
    "recorded_at": TIME,
    "event_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "event_type": pl.String(),
    "event_time": TIME,
    "quantity": pl.Float64(),
    "value": pl.Float64(),
    "user_agent": pl.String(),
    "ip": pl.String(),
    "email": pl.String(),
    "role": pl.String(),
}
# the types of rules that make a column
_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("recorded_at", "event_time"), ("time",)),
    **dict.fromkeys(("event_id", "user_id", "item_id"), ("id",)),
    **dict.fromkeys(("row_id", "user_agent", "ip", "email", "role"), ("text", "id")),
    "event_type": ("event",),
    "quantity": ("integer", "decimal"),
    "value": ("decimal",),
}
# the columns that only the filters need
FILTER_INPUTS = ("user_agent", "ip", "email", "role")
MAY_BE_NULL = frozenset({"row_id", "value", *FILTER_INPUTS})

NOT_PATTERNS = ("iso8601", "epoch_s", "epoch_ms", "epoch_us")
# larger whole numbers are not exact as doubles
EXACT = 2**53
# a year; a longer time would not fit where it is subtracted from a date
MAX_MINUTES = 366 * 24 * 60
# events with these names are counted, but are neither kept nor rejected
IGNORE = "ignore"


def _known_format(name: str) -> str:
    if "%" in name:
        time_format(name)
    elif name not in NOT_PATTERNS:
        raise ValueError(
            f"must be one of {', '.join(NOT_PATTERNS)}, or a pattern such as '%d/%m/%Y %H:%M:%S %z'"
        )
    return name


Name = Annotated[str, Field(min_length=1)]
# the name of a column of JSON text, and the keys that lead to a value in it, at most through one
# list of objects: info.items[].id
PATH = re.compile(r"""[^.\[\]]+(\.[^.'"\\\[\]]+)*(\[\])?(\.[^.'"\\\[\]]+)+""")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseRule(_Strict):
    """The keys that every column rule may have."""

    required: bool = True
    nullable: bool = False
    gone: bool = False
    aliases: tuple[Name, ...] = ()
    first_of: tuple[Name, ...] = ()
    concat: tuple[Name, ...] = ()
    default: int | float | str | None = None

    @field_validator("aliases", "first_of", "concat")
    @classmethod
    def sources_are_names_or_paths(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            if re.search(r"\.|\[\]", source) and not PATH.fullmatch(source):
                raise ValueError(
                    f"{source!r} is no path such as info.user.id or items[].id: a key must not be "
                    "empty and must not hold quotes, backslashes or brackets"
                )
        if twice := sorted({source for source in sources if sources.count(source) > 1}):
            raise ValueError(f"{', '.join(twice)} named more than once")
        return sources

    @model_validator(mode="after")
    def sources_are_said_once(self) -> "BaseRule":
        if sum(map(bool, (self.aliases, self.first_of, self.concat))) > 1:
            raise ValueError("only one of aliases, first_of and concat may be set")
        return self

    def sources(self, name: str) -> tuple[str, ...]:
        """The delivered columns and paths that make the column of this name."""
        return self.concat or self.first_of or (name, *self.aliases)


class TextRule(BaseRule):
    type: Literal["id", "text"]
    pattern: str | None = None
    case: Literal["upper", "lower"] | None = None
    split: Name | None = None
    except_: tuple[Name, ...] = Field((), alias="except")
    default: None = None

    @field_validator("pattern")
    @classmethod
    def pattern_is_a_regular_expression(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.ComputeError as error:
                raise ValueError(
                    f"is not a regular expression of Rust's regex crate: {error}"
                ) from error
        return pattern


class IntegerRule(BaseRule):
    type: Literal["integer"]
    min: Annotated[int, Field(ge=-EXACT)] = -EXACT
    max: Annotated[int, Field(le=EXACT)] = EXACT
    default: int | None = None

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> "IntegerRule":
        _check_bounds(self.min, self.max, self.default)
        return self


class DecimalRule(BaseRule):
    type: Literal["decimal"]
    min: Annotated[float, Field(allow_inf_nan=False)] = -1e300
    max: Annotated[float, Field(allow_inf_nan=False)] = 1e300
    default: float | None = None

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> "DecimalRule":
        _check_bounds(self.min, self.max, self.default)
        return self


class TimeRule(BaseRule):
    type: Literal["time"]
    formats: Annotated[
        tuple[Annotated[str, AfterValidator(_known_format)], ...],
        Field(min_length=1),
        AfterValidator(check_unambiguous),
    ] = ("iso8601",)
    timezone: str | None = None
    max_ahead_minutes: Annotated[int, Field(ge=0, le=MAX_MINUTES)] | None = None
    default: None = None

    @field_validator("timezone")
    @classmethod
    def timezone_exists(cls, timezone: str | None) -> str | None:
        if timezone is not None and timezone not in zoneinfo.available_timezones():
            raise ValueError("is not a time zone; use a name such as Europe/Berlin")
        return timezone


class EventRule(BaseRule):
    type: Literal["event"]
    default: EventType | None = None


ColumnRule = Annotated[
    TextRule | IntegerRule | DecimalRule | TimeRule | EventRule, Field(discriminator="type")
]


class Contract(_Strict):
    """The contract, frozen. Columns are checked in the order in which the file names them."""

    version: Annotated[int, Field(ge=1)]
    columns: dict[str, ColumnRule]
    event_types: Annotated[
        dict[EventType | Literal["ignore"], tuple[Name, ...]], Field(min_length=1)
    ]
    _sha256: str = PrivateAttr("")

    @property
    def metadata(self) -> dict[str, str]:
        """Which contract it is: its version, and the SHA-256 of its file."""
        return {"contract_version": str(self.version), "contract_sha256": self._sha256}

    @cached_property
    def event_names(self) -> dict[str, str]:
        """Delivered name, lower case → canonical event type, or `IGNORE`."""
        return {
            name.lower(): canonical
            for canonical, names in self.event_types.items()
            for name in names
        }

    @model_validator(mode="after")
    def columns_fit_the_canonical_frame(self) -> "Contract":
        if wrong := sorted(set(self.columns) ^ set(SCHEMA)):
            raise ValueError(
                f"columns must be exactly {', '.join(SCHEMA)}; "
                f"missing or unknown: {', '.join(wrong)}"
            )
        for name, rule in self.columns.items():
            if rule.type not in _TYPES[name]:
                raise ValueError(
                    f"columns.{name}.type: {rule.type} is not allowed, "
                    f"use {' or '.join(_TYPES[name])}"
                )
            if rule.gone and (rule.required or name not in FILTER_INPUTS):
                raise ValueError(
                    f"columns.{name}.gone: "
                    f"only {', '.join(FILTER_INPUTS)} may be gone, and with required: false"
                )
            if rule.nullable and name not in MAY_BE_NULL:
                raise ValueError(
                    f"columns.{name}.nullable: must be false, later steps need the value"
                )
            if not rule.required and not rule.nullable and rule.default is None:
                raise ValueError(
                    f"columns.{name}.required: "
                    "a column that may be absent must be nullable or have a default"
                )
            if isinstance(rule, TextRule) and rule.split and name != "item_id":
                raise ValueError(
                    f"columns.{name}.split: "
                    "only item_id may name several values, each a row of its own"
                )
            if rule.concat and (not isinstance(rule, TextRule) or rule.split):
                raise ValueError(f"columns.{name}.concat: only for id and text without split")
            if isinstance(rule, TextRule) and rule.except_ and rule.type != "id":
                raise ValueError(f"columns.{name}.except: only ids have words that are refused")
        quantity = self.columns["quantity"]
        if isinstance(quantity, IntegerRule | DecimalRule) and quantity.min <= 0:
            raise ValueError(
                f"columns.quantity.min: is {quantity.min}, but must be above 0, "
                "because the history holds no returns"
            )
        recorded_at = self.columns["recorded_at"]
        if isinstance(recorded_at, TimeRule) and recorded_at.timezone not in (None, "UTC"):
            raise ValueError(
                "columns.recorded_at.timezone: must be UTC or not be set. The database cuts the "
                "days by this column, in UTC: use a type with a zone, or convert it to UTC in "
                "include/sql"
            )
        if isinstance(recorded_at, TimeRule) and recorded_at.max_ahead_minutes is not None:
            raise ValueError(
                "columns.recorded_at.max_ahead_minutes: must not be set, "
                "because other times are compared with this one"
            )
        return self

    @property
    def item_list(self) -> str | None:
        """The column or path that holds a list of objects, each of which becomes a row."""
        return next(iter(self._item_lists("item_id")), None)

    @model_validator(mode="after")
    def one_list_makes_rows(self) -> "Contract":
        lists = self._item_lists(*self.columns)
        if len(lists) > 1:
            raise ValueError(
                f"columns: {', '.join(sorted(lists))}: only one list of objects can become rows"
            )
        if lists and self.item_list is None:
            raise ValueError(f"columns.item_id: must be in the list too, as {lists.pop()}[].id")
        if lists and getattr(self.columns["item_id"], "split", None):
            raise ValueError("columns.item_id.split: must not be set beside a list of objects")
        return self

    def _item_lists(self, *names: str) -> set[str]:
        return {
            source.partition("[].")[0]
            for name in names
            for source in self.columns[name].sources(name)
            if "[]." in source
        }

    @model_validator(mode="after")
    def names_are_unique(self) -> "Contract":
        # a part of an id, or one of several ids in order, may also be a column of its own
        sources = [
            source for name, rule in self.columns.items() for source in (name, *rule.aliases)
        ]
        if twice := sorted({source for source in sources if sources.count(source) > 1}):
            raise ValueError(
                f"columns: {', '.join(twice)} named more than once as a column or an alias"
            )
        events = [name.lower() for names in self.event_types.values() for name in names]
        if twice := sorted({name for name in events if events.count(name) > 1}):
            raise ValueError(f"event_types: {', '.join(twice)} named more than once")
        return self


def load_contract(path: Path) -> Contract:
    """Read and validate a contract file.

    Raises ContractError naming the file, each wrong key and what is allowed there.
    """
    try:
        content = path.read_bytes()
        contract = Contract.model_validate(yaml.safe_load(content))
    except FileNotFoundError as error:
        raise ContractError(
            f"no data contract at {path}: put it there or change cleaning.contract"
        ) from error
    except yaml.YAMLError as error:
        raise ContractError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        lines = "\n".join(
            f"  {_key(e['loc'])}{re.sub('^Value error, ', '', e['msg'])}" for e in error.errors()
        )
        raise ContractError(f"{path} is wrong:\n{lines}") from error
    contract._sha256 = hashlib.sha256(content).hexdigest()
    return contract


def _check_bounds(low: float, high: float, default: float | None) -> None:
    if low > high:
        raise ValueError(f"min = {low} is above max = {high}")
    if default is not None and not low <= default <= high:
        raise ValueError(f"default = {default} is not between min = {low} and max = {high}")


def _key(loc: tuple[int | str, ...]) -> str:
    """A key as the file spells it: pydantic puts the column's type after the column's name."""
    keys = loc[:2] + loc[3:] if loc[:1] == ("columns",) else loc
    return ".".join(map(str, keys)) + ": " if keys else ""
