"""A day's rows on their way through the cleaning steps, from the raw object to what goes into the history.

Only `fix_types` writes the rows that it keeps. The others are judges, `align_schema` of the raw object, those after `fix_types`
of its rows: each writes the numbers of the rows that it and the judges before it took out, tied to the object they judged by
its SHA-256. The rejected rows themselves, with their reasons, lie in quarantine.
"""

import hashlib
import logging
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_ops import cleaning
from recsys_ops.cleaning import Cleaned
from recsys_ops.cleaning.result import is_member
from recsys_ops.errors import DataError, StorageError
from recsys_ops.settings import CleaningSettings, include_dir
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.storage.scratch import scratch

log = logging.getLogger(__name__)

STEPS: dict[str, Callable[[pl.LazyFrame, CleaningSettings], Cleaned]] = {
    "align_schema": lambda rows, settings: cleaning.align_schema(rows, _contract(settings)),
    "fix_types": lambda rows, settings: cleaning.fix_types(rows, _contract(settings)),
    "deduplicate": lambda rows, settings: cleaning.deduplicate(rows),
    "filter_crawlers": lambda rows, settings: cleaning.filter_crawlers(rows, settings.crawlers),
    "filter_bots": lambda rows, settings: cleaning.filter_bots(rows, settings.bots),
    "filter_staff": lambda rows, settings: cleaning.filter_staff(rows, settings.staff),
}
_ORDER = list(STEPS)
LAST_STEP = _ORDER[-1]
_FAST: Any = {"compression": "zstd", "compression_level": 1, "statistics": False}
# what a message may show of a rejected row: it goes into logs and alerts, and columns may be mixed up
_NUMBER = r"(?!(\d+\.){3})[-0-9.eE_:TZ]{1,32}"
_IMPERSONAL = dict.fromkeys(("recorded_at", "event_time", "quantity", "value"), _NUMBER) | {
    "event_type": "[a-z_]{1,32}"
}


def run_step(storage: Storage, step: str, day: date, settings: CleaningSettings) -> dict[str, Any]:
    """Apply a step to what the one before it left of the day, and return the step's figures.

    Memory grows with the compressed rows of the day and with what the step's function says.
    Raises DataError when a larger share of the rows than `max_rejected_share` is rejected; they are in quarantine by then.
    """
    rows, facts = _incoming(storage, step, day, settings)
    cleaned = STEPS[step](rows, settings)
    # versions of lists and of the contract travel with the rows
    facts |= {name: note for name, note in cleaned.notes.items() if isinstance(note, str)}
    with scratch() as folder:
        kept, rejected = folder / "kept.parquet", folder / "rejected.parquet"
        try:
            # one sink after the other: Polars would hold in memory what two have in common
            if step == "fix_types":
                cleaned.kept.sink_parquet(kept, metadata=facts, **_FAST)
            refused = (
                cleaned.rejected.filter(_left_out(rows, kept))
                if step == "fix_types"
                else cleaned.rejected
            )
            refused.sink_parquet(rejected, metadata=facts, **_FAST)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StorageError(
                f"{step} {day}: cannot write to {folder}, or read its rows: {error}"
            ) from error
        storage.put(paths.quarantine(step, day), rejected)
        for later in _ORDER[_ORDER.index(step) + 1 :]:
            storage.delete(paths.quarantine(later, day))  # it is about rows of an earlier run
        quarantined = pl.scan_parquet(rejected)
        figures = _figures(rows, quarantined, cleaned.notes)
        if figures["rejected"] > settings.max_rejected_share * figures["rows_in"]:
            storage.delete(
                paths.step(step, day)
            )  # an earlier run's rows must not pass for this one's
            raise DataError(
                _too_many(storage, step, day, figures, quarantined, settings.max_rejected_share)
            )
        figures["kept"] = _count(pl.scan_parquet(kept) if step == "fix_types" else cleaned.kept)
        exploded = figures["kept"] + figures["rejected"] - figures["rows_in"]
        if exploded and not (exploded > 0 and cleaned.notes.get("split")):
            raise DataError(
                f"{step} {day}: {figures} do not add up: rows in must be rows kept and rejected"
            )
        if step == "fix_types":
            storage.put(paths.step(step, day), kept)
        else:
            _take_out(storage, step, day, quarantined, facts)
    return figures | (
        {"exploded": exploded, "drift": _drift(storage, day, rows.collect_schema())}
        if step == "align_schema"
        else {}
    )


def kept_rows(storage: Storage, step: str, day: date) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The rows that `fix_types` or a later step left of the day, in the order of delivery, and the facts that travel with them.

    Raises StorageError when the step's object is missing, or when the rows it judged have been written anew since.
    """
    judged, facts = _judged(storage, paths.step("fix_types", day))
    if step == "fix_types":
        return judged, facts
    taken, facts = _taken(storage, step, day, facts["judged"])
    return judged.filter(~is_member(taken)), facts


def _incoming(
    storage: Storage, step: str, day: date, settings: CleaningSettings
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """The rows that a step judges, and the facts that travel with them."""
    if step not in ("align_schema", "fix_types"):
        return kept_rows(storage, _before(step), day)
    delivered, facts = _judged(storage, paths.raw(day))
    if step == "align_schema":
        return delivered, facts
    broken, facts = _taken(storage, "align_schema", day, facts["judged"])
    contract = _contract(settings)
    if facts["contract_sha256"] != contract.facts["contract_sha256"]:
        raise StorageError(
            f"the contract has changed since align_schema judged {day}: run the steps after extract_delta again"
        )
    return cleaning.align_schema(delivered, contract, broken).kept, facts


def _judged(storage: Storage, path: str) -> tuple[pl.LazyFrame, dict[str, str]]:
    """An object that steps judge, and its facts, its SHA-256 among them."""
    data = storage.get(path)
    rows, facts = storage.open_parquet(path, data)
    return rows, {**facts, "judged": hashlib.sha256(data).hexdigest()}


def _taken(storage: Storage, step: str, day: date, digest: str) -> tuple[pl.Series, dict[str, str]]:
    """The numbers of the rows that a step and the judges before it took out, and the facts that travel with the others."""
    taken, facts = storage.scan_parquet(paths.step(step, day))
    if facts.get("judged") != digest:
        wrote = "extract_delta" if step == "align_schema" else "fix_types"
        raise StorageError(
            f"{step} of {day} judged other rows than {wrote} left since: run the steps after {wrote} again"
        )
    return taken.collect()["row"], facts


def _before(step: str) -> str:
    return _ORDER[_ORDER.index(step) - 1]


def _take_out(
    storage: Storage, step: str, day: date, quarantined: pl.LazyFrame, facts: dict[str, str]
) -> None:
    """Write the numbers of all rows taken out so far, ascending, with the digest of the object that was judged."""
    taken = quarantined.select("row").collect()["row"]
    if step not in ("align_schema", "deduplicate"):
        taken = taken.append(_taken(storage, _before(step), day, facts["judged"])[0])
    storage.write_parquet(paths.step(step, day), taken.sort().to_frame(), facts)


def _contract(settings: CleaningSettings) -> cleaning.Contract:
    return cleaning.load_contract(include_dir() / settings.contract)


def _left_out(rows: pl.LazyFrame, kept: Path) -> pl.Expr:
    """Which rows are not among the kept, so that only those are judged once more for their reasons."""
    came, went = (
        frame.select("row").collect()["row"].to_numpy() for frame in (rows, pl.scan_parquet(kept))
    )
    return is_member(pl.Series(np.setdiff1d(came, went, assume_unique=True)))


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def _figures(
    rows: pl.LazyFrame, quarantined: pl.LazyFrame, notes: dict[str, object]
) -> dict[str, Any]:
    reasons = dict(
        quarantined.group_by("reason").len().sort("reason").collect(engine="streaming").iter_rows()
    )
    return {
        "rows_in": _count(rows),
        "kept": 0,
        "rejected": sum(reasons.values()),
        "reasons": reasons,
        **notes,
    }


def _too_many(
    storage: Storage,
    step: str,
    day: date,
    figures: dict[str, Any],
    quarantined: pl.LazyFrame,
    max_share: float,
) -> str:
    """What the failed task says: how much, why most often, a row of each, and where all of them lie."""
    top = sorted(figures["reasons"].items(), key=lambda found: -found[1])[:5]
    samples = (
        quarantined.group_by("reason", maintain_order=True).first().collect(engine="streaming")
    )
    seen = {row["reason"]: _sample(row) for row in samples.iter_rows(named=True)}
    said = "; ".join(f"{reason} {count:,}, such as {seen[reason]}" for reason, count in top)
    return (
        f"{step} {day}: {figures['rejected']:,} of {figures['rows_in']:,} rows rejected, more than "
        f"cleaning.max_rejected_share = {max_share}. {said}. The rows: {storage.url(paths.quarantine(step, day))}. "
        "Mend the source, include/contract.yaml or the settings"
    )


def _sample(row: dict[str, Any]) -> str:
    """A rejected row as a message may show it: by its id, with a value that looks like a number, a time or an event's name."""
    where = f"row_id {row['row_id']}" if row.get("row_id") is not None else f"row {row['row']}"
    pattern, value = _IMPERSONAL.get(row["column"]), str(row["value"])
    shown = f" = {value!r}" if pattern and re.fullmatch(pattern, value) else ""
    return f"{where}, {row['column']}{shown}" if row["column"] else where


def _drift(storage: Storage, day: date, today: pl.Schema) -> dict[str, object] | None:
    """How the delivery's columns differ from the day before's, null where that was not delivered."""
    earlier = paths.raw(day - timedelta(days=1))
    if not storage.exists(earlier):
        return None
    found = cleaning.drift(today, storage.schema(earlier))
    if found:
        log.warning("the delivery of %s differs from the day before's: %s", day, found)
    return found
