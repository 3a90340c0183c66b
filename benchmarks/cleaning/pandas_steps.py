"""The rules of the cleaning steps in plain pandas: the rival of steps.py.

Each step reads and writes Parquet. Written with care for the demo shop's delivery under
include/contract.yaml: a column at a time, text as pandas' own ``str``, rules about a user agent or
an address once per distinct value, groups only over the rows that need them. The regular
expressions and the lists of crawlers are the package's own. pandas stores text in Arrow if pyarrow
is installed; otherwise, and in every version before 3, as Python objects. Both can be tried.
"""

import ipaddress
import json
import re
import string
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet  # noqa: F401 - pandas would import it while it is timed

from recsys_ops.cleaning import crawlers
from recsys_ops.cleaning.align import MAX_ITEMS
from recsys_ops.cleaning.bots import PSEUDO_USER_EVENTS, USERS_A_DAY, VISIT_GAP
from recsys_ops.cleaning.contract import (
    Contract,
    DecimalRule,
    EventRule,
    IntegerRule,
    TextRule,
    TimeRule,
)
from recsys_ops.cleaning.parsing import (
    DECIMAL,
    END,
    EPOCHS,
    FIRST,
    INTEGER,
    INVISIBLE,
    MAX_ID_LENGTH,
    NAIVE,
    NO_VALUE,
    NOBODY,
)
from recsys_ops.cleaning.time_formats import ZONE
from recsys_ops.settings import CONVERSIONS, BotSettings, CleaningSettings, StaffSettings

warnings.filterwarnings(
    "ignore", "This pattern is interpreted as a regular expression, and has match groups"
)

KEY = ["event_id", "item_id"]
# Python's regular expressions have no classes of characters by category
_CHARACTERS = pl.Series([chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000])
UNSEEN = "".join(_CHARACTERS.filter(_CHARACTERS.str.contains(INVISIBLE.rpartition("|")[0])))
UNFIT = f"[{UNSEEN}]"
WORDS = {
    reason: words.replace("[:punct:]", re.escape(string.punctuation))
    for reason, words in (("bad_id", NO_VALUE), ("nobody", f"{NO_VALUE}|{NOBODY}"))
}


@dataclass
class Faults:
    """The first fault of each row: `code` is 0 for none, else an index in `named` plus 1."""

    code: np.ndarray
    named: list[tuple[str, str]]

    def add(self, reason: str, column: str, holds: pd.Series) -> None:
        self.named.append((reason, column))
        self.code[(self.code == 0) & holds.fillna(False).to_numpy(bool)] = len(self.named)

    def divide(
        self, kept: pd.DataFrame, came: pd.DataFrame, texts: Callable[[str, np.ndarray], pd.Series]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The kept rows of `kept`, and the rejected rows of `came` with reason, column and text."""
        broken = self.code > 0
        reason, column = (
            pd.Series(np.array(["", *names])[self.code[broken]])
            for names in zip(*self.named, strict=True)
        )
        rejected = (
            came[broken].reset_index(drop=True).assign(reason=reason, column=column, value=None)
        )
        for name in column.unique():
            rejected.loc[column == name, "value"] = texts(
                name, np.flatnonzero(broken)[column == name]
            )
        return kept[~broken], rejected


def clean(
    step: str,
    source: Path,
    kept: Path,
    rejected: Path,
    settings: CleaningSettings,
    contract: Contract,
    text: str,
) -> dict[str, object]:
    """Apply a step; returns rows in and kept, rejections by reason, and the seconds of file access.

    text : ``pyarrow`` or ``python``, how pandas stores text
    """
    pd.options.mode.string_storage = text
    began = time.perf_counter()
    rows = pd.read_parquet(source)
    read = time.perf_counter()
    steps: dict[str, Callable[[], tuple[pd.DataFrame, pd.DataFrame]]] = {
        "align_schema": lambda: align_schema(rows, contract),
        "fix_types": lambda: fix_types(rows, contract),
        "deduplicate": lambda: deduplicate(rows),
        "filter_crawlers": lambda: filter_crawlers(rows),
        "filter_bots": lambda: filter_bots(rows, settings.bots),
        "filter_staff": lambda: filter_staff(rows, settings.staff),
    }
    on, out = steps[step]()
    done = time.perf_counter()
    on.to_parquet(kept, index=False)
    out.to_parquet(rejected, index=False)
    reasons = {str(reason): int(count) for reason, count in out["reason"].value_counts().items()}
    return {
        "rows_in": len(rows),
        "kept": len(on),
        "reasons": reasons,
        "files": time.perf_counter() - done + read - began,
    }


def align_schema(delivered: pd.DataFrame, contract: Contract) -> tuple[pd.DataFrame, pd.DataFrame]:
    faults = Faults(np.zeros(len(delivered), np.int16), [])
    aligned, columns = {}, {}
    for name, rule in contract.columns.items():
        sources = [source for source in (name, *rule.aliases) if source in delivered]
        if not sources:
            aligned[name] = pd.Series(None, delivered.index, dtype="str")
            continue
        values = delivered[sources[0]]
        if len(sources) > 1:
            texts = [delivered[source].str.strip() for source in sources]
            texts = [text.where(text != "") for text in texts]
            values = texts[0]
            for text in texts[1:]:
                faults.add("alias_conflict", name, values.notna() & text.notna() & (values != text))
                values = values.fillna(text)
        if isinstance(rule, TextRule) and rule.split:
            values = items(values, rule.split, faults)
        aligned[name], columns[name] = values, sources
    kept, rejected = faults.divide(
        pd.DataFrame(aligned),
        delivered.assign(row=np.arange(len(delivered))),
        lambda name, rows: (
            delivered[columns[name]]
            .iloc[rows]
            .apply(lambda row: " ".join(f"{k}={v}" for k, v in row.items() if v), axis=1)
            .array
        ),
    )
    if kept["item_id"].dtype == object:
        kept = kept.explode("item_id").astype({"item_id": "str"})
    return kept.reset_index(drop=True).rename_axis("row").reset_index(), rejected


def items(values: pd.Series, separator: str, faults: Faults) -> pd.Series:
    """Lists where a text names several items."""
    several = values.str.contains(rf"^\s*[\[{{]|{separator}", na=False)
    if not several.any():
        return values
    lists = values[several].map(lambda text: item_ids(text, separator))
    faults.add(
        "not_a_value",
        "item_id",
        lists.map(lambda ids: None in ids).reindex(values.index, fill_value=False),
    )
    faults.add(
        "too_many_items",
        "item_id",
        (lists.map(len) > MAX_ITEMS).reindex(values.index, fill_value=False),
    )
    return values.astype(object).where(~several, lists)


def item_ids(text: str, separator: str) -> list[str | None]:
    if not text.lstrip().startswith(("[", "{")):
        return [part.strip() for part in text.split(separator) if part.strip()]
    try:
        values = json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return [None]
    if not isinstance(values, list) or not all(
        value is None or isinstance(value, str) for value in values
    ):
        return [None]
    return [value.strip() for value in values if value and value.strip()]


def fix_types(aligned: pd.DataFrame, contract: Contract) -> tuple[pd.DataFrame, pd.DataFrame]:
    faults = Faults(np.zeros(len(aligned), np.int16), [])
    read = {"row": aligned["row"]}
    for name, rule in contract.columns.items():
        text = aligned[name]
        is_time = isinstance(text.dtype, pd.DatetimeTZDtype)
        if not is_time:
            text = text.astype("str").str.strip()
            text = text.where(text != "")
        present = text.notna()
        if rule.default is None and not rule.nullable:
            faults.add("missing", name, ~present)
        match rule:
            case TextRule():
                read[name] = text
                if rule.type == "id":
                    faults.add(
                        "bad_id",
                        name,
                        text.str.contains(UNFIT, na=False) | (text.str.len() > MAX_ID_LENGTH),
                    )
                    reason = "nobody" if name == "user_id" else "bad_id"
                    faults.add(reason, name, text.str.contains(WORDS[reason], na=False))
            case EventRule():
                read[name] = text.str.lower().map(contract.event_names).astype("str")
                faults.add("unknown_event", name, present & read[name].isna())
            case TimeRule() if is_time:
                read[name] = text
                faults.add("out_of_bounds", name, outside(read[name]))
            case TimeRule():
                read[name] = written_time(name, text, faults)
                faults.add(
                    "future",
                    name,
                    read[name]
                    > read["recorded_at"] + timedelta(minutes=rule.max_ahead_minutes or 0),
                )
            case IntegerRule():
                written = text.str.contains(INTEGER, na=False)
                fits = written & (text.str.len() < 19)
                read[name] = pd.to_numeric(text.where(fits).fillna(str(rule.default))).astype(
                    "int64"
                )
                faults.add("not_an_integer", name, present & ~written)
                faults.add(
                    "out_of_bounds",
                    name,
                    present & ~(fits & read[name].between(rule.min, rule.max)),
                )
            case DecimalRule():
                written = text.str.contains(DECIMAL, na=False)
                read[name] = text.where(written).astype("float64")
                faults.add("not_a_decimal", name, present & ~written)
                faults.add("out_of_bounds", name, present & ~read[name].between(rule.min, rule.max))
    return faults.divide(
        pd.DataFrame(read), aligned, lambda name, rows: aligned[name].iloc[rows].astype("str").array
    )


def written_time(name: str, text: pd.Series, faults: Faults) -> pd.Series:
    zoned = text.str.contains(f"{NAIVE}{ZONE}$", na=False)
    naive = text.str.contains(NAIVE + "$", na=False)
    read = pd.Series(pd.NaT, text.index, dtype="datetime64[us, UTC]")
    read[zoned] = pd.to_datetime(text[zoned], format="ISO8601", utc=True, errors="coerce")
    number = text[text.str.contains("^[0-9]{9,16}$", na=False)].astype("int64")
    for scale in (EPOCHS["epoch_s"], EPOCHS["epoch_ms"]):
        plausible = number[
            (number >= FIRST.timestamp() * scale) & (number < END.timestamp() * scale)
        ]
        read[plausible.index] = pd.to_datetime(plausible * (10**6 // scale), unit="us", utc=True)
    moment = pd.to_datetime(text[naive], format="ISO8601", errors="coerce").notna()
    faults.add("naive_time", name, moment.reindex(text.index, fill_value=False))
    faults.add("not_a_time", name, text.notna() & read.isna())
    faults.add("out_of_bounds", name, outside(read))
    return read


def outside(moment: pd.Series) -> pd.Series:
    return moment.notna() & ~((moment >= FIRST) & (moment < END))


def deduplicate(events: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    repeated = events[events.duplicated(KEY, keep=False)]
    repeated = repeated.assign(length=repeated["row_id"].str.len()).sort_values(
        ["recorded_at", "length", "row_id", "row"]
    )
    earlier = repeated.duplicated(KEY, keep="last")
    content = [name for name in events if name not in (*KEY, "row", "row_id", "recorded_at")]
    # alike in all content as well: of those the last is the latest, or there is a row between
    last = repeated.drop_duplicates(KEY, keep="last").set_index(KEY)
    latest = last.reindex(pd.MultiIndex.from_frame(repeated[KEY]))[content].reset_index(drop=True)
    mine = repeated[content].reset_index(drop=True)
    same = ((mine == latest) | (mine.isna() & latest.isna())).all(axis=1).to_numpy(bool)
    rejected = repeated.drop(columns="length").assign(
        reason=np.where(same, "duplicate", "superseded"),
        column="event_id",
        value=repeated["event_id"],
    )[earlier]
    return events.drop(rejected.index), rejected.sort_index()


def filter_crawlers(events: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    code, agents = pd.factorize(events["user_agent"])
    kinds = np.array([crawlers._reason(agent) or "" for agent in agents] + [""])
    kind = pd.Series(kinds[code], events.index)
    suspect = events.loc[kind == "crawler_suspect", ["user_agent", "recorded_at", "event_type"]]
    if len(suspect):
        days = [suspect["user_agent"], suspect["recorded_at"].dt.floor("D")]
        shops = suspect["event_type"].isin(CONVERSIONS).groupby(days).transform("any")
        events_a_day = suspect["event_type"].groupby(days).transform("size")
        kind[suspect.index[shops | (events_a_day < crawlers.SUSPECT_EVENTS)]] = ""
    robots = kind != ""
    rejected = events[robots]
    return events[~robots], rejected.assign(
        reason=kind[robots], column="user_agent", value=rejected["user_agent"]
    )


def filter_bots(events: pd.DataFrame, settings: BotSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    users, names = pd.factorize(events["user_id"])
    days, _ = pd.factorize(events["recorded_at"].dt.floor("D"))
    ids = pd.Series(days.astype(np.int64) * len(names) + users, events.index)
    user_days = (
        pd.DataFrame({"id": ids, "buys": events["event_type"] == "purchase"})
        .groupby("id")["buys"]
        .agg(["size", "any"])
    )
    day = user_days.index // len(names)
    share = user_days["size"] / user_days.groupby(day)["size"].transform("sum")
    pseudo = user_days.index[
        (share >= settings.pseudo_user_share)
        & (user_days["size"] >= PSEUDO_USER_EVENTS)
        & (user_days.groupby(day)["size"].transform("size") >= USERS_A_DAY)
    ]
    suspects = user_days.index[
        (user_days["size"] >= settings.min_events) & ~user_days["any"]
    ].difference(pseudo)
    lines = events.loc[ids.isin(suspects), ["event_time", "item_id", "event_type"]].assign(id=ids)
    signs = _signs(lines, settings)
    bots = signs[signs.sum(axis=1) >= settings.min_signals]
    signals = bots.apply(lambda row: " ".join(row.index[row]), axis=1).astype(object)
    reason = pd.concat([pd.Series("bot", signals.index), pd.Series("pseudo_user", pseudo)])
    signals = pd.concat(
        [signals, share[pseudo].map(lambda part: f"{100 * part:.1f} % of the day's events")]
    )
    robots = ids.isin(reason.index)
    return events[~robots], events[robots].assign(
        reason=ids.map(reason), column=None, value=ids.map(signals)
    )


SIGNALS = ("rate", "breadth", "hours", "visit", "regular_gaps", "no_conversions")


def _signs(lines: pd.DataFrame, settings: BotSettings) -> pd.DataFrame:
    moments = lines[["id", "event_time"]].drop_duplicates().sort_values(["id", "event_time"])
    gap = moments.groupby("id")["event_time"].diff()
    gap = gap.where(gap <= VISIT_GAP)
    visit = (
        moments["event_time"].groupby([moments["id"], gap.isna().cumsum()]).agg(["first", "last"])
    )
    longest = (visit["last"] - visit["first"]).groupby("id").max()
    busiest = (
        moments.groupby(["id", moments["event_time"].dt.floor("min")]).size().groupby("id").max()
    )
    per = moments.groupby("id")
    gaps = gap.dt.total_seconds().groupby(moments["id"])
    low, high = (gaps.quantile(share, interpolation="nearest") for share in (0.25, 0.75))
    by_user = lines.groupby("id")
    return pd.DataFrame(
        {
            "rate": (busiest > settings.max_events_per_minute)
            | (per.size() > settings.max_events_per_day),
            "breadth": by_user["item_id"].nunique() > settings.max_items,
            "hours": moments["event_time"].dt.hour.groupby(moments["id"]).nunique()
            > settings.max_hours_active,
            "visit": longest > timedelta(hours=settings.max_visit_hours),
            "regular_gaps": (gaps.count() >= settings.min_events // 2)
            & ((high - low) / gaps.median() < settings.min_gap_spread),
            "no_conversions": ~lines["event_type"].isin(CONVERSIONS).groupby(lines["id"]).any(),
        }
    )


def filter_staff(
    events: pd.DataFrame, settings: StaffSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    faults = Faults(np.zeros(len(events), np.int16), [])
    email = events["email"].str.lower()
    faults.add("staff_account", "user_id", events["user_id"].isin(settings.user_ids))
    faults.add(
        "staff_role",
        "role",
        events["role"].str.lower().isin([name.lower() for name in settings.roles]),
    )
    domain = email.str.extract("@([^@]*)$", expand=False)
    faults.add(
        "staff_email", "email", domain.isin([name.lower() for name in settings.email_domains])
    )
    code, addresses = pd.factorize(events["ip"])
    inside = np.array([_inside(text, settings) for text in addresses] + [False])
    faults.add("staff_network", "ip", pd.Series(inside[code], events.index))
    if settings.test_account_pattern is not None:
        faults.add(
            "test_account",
            "email",
            email.str.contains(f"(?i){settings.test_account_pattern}", na=False),
        )
    return faults.divide(events, events, lambda name, rows: events[name].iloc[rows].array)


def _inside(text: str, settings: StaffSettings) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("/")[0])
    except ValueError:
        return False
    return any(address in network for network in settings.networks)
