"""What each cleaning step sees and rejects, counted by day.

One run may read many days, above all the first load. Counted by day, each of them says what is
usual, and the gate need not wait for four weeks of runs.
"""

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from recsys_ops.cleaning import Cleaned, Contract
from recsys_ops.cleaning.contract import FILTER_INPUTS
from recsys_ops.cleaning.result import is_member
from recsys_ops.errors import DamagedError
from recsys_ops.ingest.steps import EXTRACT, FILTERS, STEPS, Step, step_before
from recsys_ops.settings import CONVERSIONS
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_DAYS = 29  # the run's day and the 28 before, from which the day profile takes what is usual
_COUNTED = [step for step in STEPS.values() if step.counts_as is not None or step in FILTERS]

# blank, and a log's - or "-"
_BLANK = r"""^[\s"'-]*$"""
_READS_VALUES = next(step for step in STEPS.values() if step.writes_rows)

# day → name of the count → number of rows; "nulls" has one for each column
DayCounts = dict[str, dict[str, Any]]


def count_days(
    step: Step,
    day: date,
    rows: pl.LazyFrame,
    quarantined: pl.LazyFrame,
    cleaned: Cleaned,
    contract: Contract,
) -> DayCounts:
    """The counts of a step for each day that it saw.

    rows : the rows that the step got; quarantined : those that it rejected

    ``rows``, ``conversions``, ``rejected``, ``conversions_rejected``; of a step that ignores rows
    ``ignored``; of the step that reads the values ``nulls``: column → rows without a value. A row
    whose `recorded_at` cannot be read counts to the run's day.
    """
    schema = rows.collect_schema()
    is_conversion = _is_conversion(step, schema, contract)
    seen = {"rows": pl.len(), "conversions": is_conversion.sum()}
    nulls = _nulls(schema, contract) if step.writes_rows else {}
    refused = {"rejected": pl.len(), "conversions_rejected": is_conversion.sum()}
    counts = _by_day(rows, day, seen | nulls).join(
        _by_day(quarantined, day, refused), on="day", how="full", coalesce=True
    )
    if cleaned.ignored is not None:
        ignored = is_member(cleaned.ignored.select("row").collect(engine="streaming")["row"])
        counts = counts.join(
            _by_day(rows.filter(ignored), day, {"ignored": pl.len()}), on="day", how="left"
        )
    return {
        str(count.pop("day")): {
            **{name: value for name, value in count.items() if name not in nulls},
            **({"nulls": {name: count[name] for name in nulls}} if nulls else {}),
        }
        for count in counts.fill_null(0).sort("day").iter_rows(named=True)
    }


def write_counts(storage: Storage, step: Step, day: date, counts: DayCounts) -> None:
    """Write the counts of the run's day and of the 28 days before."""
    first = str(day - timedelta(days=_DAYS - 1))
    recent = {counted: count for counted, count in counts.items() if counted >= first}
    storage.write_json(paths.day_counts(step.name, day), recent)


def rejected_shares(storage: Storage, days: Sequence[date]) -> dict[date, dict[str, float]]:
    """The shares of the rows of `days` that the steps rejected, from the runs' counts by day.

    A day's own run counts, or if it had none the first run of `days` that has read the day.

    Returns for each day shares of the delivered rows: ``quarantine_share`` and ``bot_share``, see
    `Step.counts_as`, and ``ignored_share`` if the contract ignores events; of the conversions that
    reached the filters ``conversions_rejected_share``; and for each column ``nulls.<column>``, the
    share of the rows without a value. A day is missing if no complete run has read it, or if
    nothing was delivered.

    Raises DamagedError where the counts of the last day are damaged; those of an earlier run are
    named in a warning.
    """
    runs: dict[date, dict[str, DayCounts]] = {}
    for run in sorted(days):
        try:
            if counts := _counts_of_run(storage, run):
                runs[run] = counts
        except DamagedError as error:
            if run == max(days):
                raise
            log.warning("the shares of the run of %s are left out: %s", run, error)
    first, *_ = STEPS
    shares: dict[date, dict[str, float]] = {}
    for day in days:
        for run, counts in runs.items():
            if run >= day and counts[first].get(str(day), {}).get("rows"):
                of_day = {step: by_day.get(str(day), {}) for step, by_day in counts.items()}
                shares[day] = _shares(of_day)
                break
    return shares


def had_values(storage: Storage, day: date) -> set[str]:
    """The columns of the filters that had values in one of the runs of the 28 days before."""
    columns: set[str] = set()
    for ago in range(1, _DAYS):
        path = paths.day_counts(_READS_VALUES.name, day - timedelta(days=ago))
        if storage.exists(path):
            try:
                by_day: DayCounts = storage.read_record(path)
            except DamagedError as error:
                log.warning("the counts of an earlier run are left out: %s", error)
                continue
            for counts in by_day.values():
                columns |= {
                    name for name in FILTER_INPUTS if counts["nulls"].get(name) != counts["rows"]
                }
    return columns


def _shares(counts: dict[str, dict[str, Any]]) -> dict[str, float]:
    """counts : step → the counts of a day"""
    # with each of the rows that one delivered row became, such as the objects of a list
    first, second, *_ = STEPS
    delivered = counts[first].get("rejected", 0) + counts[second].get("rows", 0)
    delivered = max(delivered, counts[first]["rows"])
    shares = {
        share: sum(counts[s.name].get("rejected", 0) for s in _COUNTED if s.counts_as == share)
        / delivered
        for share in ("quarantine_share", "bot_share")
    }
    for of_step in counts.values():
        if "ignored" in of_step:
            shares["ignored_share"] = of_step["ignored"] / delivered
        for column, rows in of_step.get("nulls", {}).items():
            shares[f"nulls.{column}"] = rows / of_step["rows"] if of_step["rows"] else 0.0
    if conversions := counts[FILTERS[0].name].get("conversions"):
        rejected = sum(counts[step.name].get("conversions_rejected", 0) for step in FILTERS)
        shares["conversions_rejected_share"] = rejected / conversions
    return shares


def _counts_of_run(storage: Storage, run: date) -> dict[str, DayCounts] | None:
    """By step; None if the run is not complete."""
    written = {step.name: paths.day_counts(step.name, run) for step in _COUNTED}
    if not all(storage.exists(path) for path in written.values()):
        return None
    return {name: storage.read_record(path) for name, path in written.items()}


def _by_day(rows: pl.LazyFrame, day: date, counts: dict[str, pl.Expr]) -> pl.DataFrame:
    recorded, run_day = pl.col("recorded_at"), pl.lit(day, pl.Date)
    match rows.collect_schema()["recorded_at"]:
        case pl.Datetime(time_zone=None):
            recorded = recorded.dt.date()
        case pl.Datetime():
            recorded = recorded.dt.convert_time_zone("UTC").dt.date()
        case pl.String:
            recorded = recorded.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        case _:
            recorded = run_day
    in_run = pl.min_horizontal(recorded.fill_null(run_day), run_day)
    return rows.group_by(day=in_run).agg(**counts).collect(engine="streaming")


def _is_conversion(step: Step, schema: pl.Schema, contract: Contract) -> pl.Expr:
    """Whether a row is a cart, checkout or purchase; not where a JSON path holds the event type."""
    names: set[str] = {*CONVERSIONS}
    columns = ["event_type"]
    if step.reads == EXTRACT:
        names = {name for name, type_ in contract.event_names.items() if type_ in CONVERSIONS}
    if step_before(step) is None:
        columns = [*contract.columns["event_type"].sources("event_type")]
    delivered = [name for name in columns if name in schema]
    return pl.any_horizontal(
        pl.lit(False),
        *(
            pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase().is_in(names)
            for name in delivered
        ),
    ).fill_null(False)


def _nulls(schema: pl.Schema, contract: Contract) -> dict[str, pl.Expr]:
    """For each column of the contract the rows without a value."""
    nulls = {}
    for name in contract.columns:
        missing = pl.col(name).is_null()
        if schema[name] == pl.String:
            missing |= pl.col(name).str.contains(_BLANK)
        nulls[name] = missing.sum()
    return nulls
