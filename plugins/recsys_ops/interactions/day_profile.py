"""The day profile: a run's day and window beside the four weeks before, for the gate's data guards.

Metrics alone hardly show that a fifth of the rows are robots', or that half of the history is lost,
because every model is evaluated on the same data. Nor do they show that the catalogue is wrong,
because items are evaluated whether they are eligible or not.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import median

import polars as pl
from pydantic import BaseModel, ConfigDict

USUAL_DAYS = 28
_MIN_DAYS = 7  # with fewer days before, nothing is called usual

# what the tasks of each day's run have reported: by day, then by the name of the figure
Reported = Mapping[date, Mapping[str, float]]


class Figure(BaseModel):
    """A figure of the day beside the same figure of the 28 days before.

    value : of the day; None where it has none
    usual : the median of the days before, of a gap the longest that occurred twice; None with
        fewer than seven days
    spread : how far an unusual one of those days is from the median: for the ratios `rows_per_user`
        and `repeats` the most unusual, as a factor ≥ 1; for reported figures the second most
        unusual, as a difference, because one odd day does not make the next one usual
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int | float | None
    usual: int | float | None
    spread: float | None = None


_NONE = Figure(value=None, usual=None)


class DayProfile(BaseModel):
    """The figures of a day, as they are stored in ``metrics.json`` under ``data``.

    rows, users, items : of the day, in the history; only earlier days with rows count for `usual`
    rows_per_user : rows / users
    repeats : rows / pairs of user and item
    gap : days from the last earlier day that has rows to this one; usual is the longest gap between
        two neighbouring days that have rows, of those that occurred twice
    unread_days : days of the 28 before that have no rows because no run has read them, except where
        a gap of that length was usual before it
    quarantine_share, bot_share : the shares of the delivered rows that were rejected for their
        values, and as those of crawlers and bots
    ignored_share : the share of the delivered rows of events that the contract ignores
    conversions_rejected_share : the share of the carts, checkouts and purchases that the filters
        rejected
    nulls : for each column of the contract the share of the rows without a value
    window_rows, window_days : of the whole window
    superseded_rows : the rows of the window that are left out because a later day has their event
    eligible : the eligible items of the catalogue, those of excluded categories included
    unmanaged_share : the share of the published items that have no figure of stock
    known_share, window_known_share : the shares of the day's rows, and of the window's, whose item
        the catalogue has
    known_items : the items of the matrices that the catalogue has in no excluded category

    The figures with a default are None in the profiles of older releases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Figure
    users: Figure
    items: Figure
    rows_per_user: Figure
    repeats: Figure
    gap: Figure
    unread_days: tuple[date, ...] = ()
    quarantine_share: Figure
    bot_share: Figure
    window_rows: int
    window_days: int
    ignored_share: Figure = _NONE
    conversions_rejected_share: Figure = _NONE
    nulls: dict[str, Figure] = {}
    superseded_rows: int | None = None
    eligible: Figure = _NONE
    unmanaged_share: Figure = _NONE
    known_share: Figure = _NONE
    window_known_share: float | None = None
    known_items: int | None = None


@dataclass(frozen=True)
class CatalogueProfile:
    """What the profile needs of the day's catalogue.

    items : String series, the ids of all its items
    eligible, unmanaged_share, known_items : as in `DayProfile`
    """

    items: pl.Series
    eligible: int
    unmanaged_share: float
    known_items: int


def profile_day(
    events: pl.DataFrame,
    day: date,
    window_start: date,
    reported: Reported,
    *,
    catalogue: CatalogueProfile | None = None,
    read_days: Collection[date] | None = None,
) -> DayProfile:
    """The profile of a run's day.

    events : the window's history rows: day, user_id, item_id
    reported : the shares and the catalogue's figures of the days before, by their names in
        `DayProfile`; of the day itself the shares that cleaning has rejected
    catalogue : None: the profile has no figures of it
    read_days : the days that a run has read, with rows or without; None: all days
    """
    first = day - timedelta(days=USUAL_DAYS)
    window = events.lazy().filter(pl.col("day").is_between(window_start, day))
    window_days = window.group_by("day").agg(rows=pl.len()).sort("day").collect()
    by_day = (
        window.filter(pl.col("day") >= first)
        .group_by("day")
        .agg(
            rows=pl.len(),
            users=pl.col("user_id").n_unique(),
            items=pl.col("item_id").n_unique(),
            pairs=pl.struct("user_id", "item_id").n_unique(),
        )
        .with_columns(
            rows_per_user=pl.col("rows") / pl.col("users"), repeats=pl.col("rows") / pl.col("pairs")
        )
        .sort("day")
        .collect()
    )
    today, before = by_day.filter(pl.col("day") == day), by_day.filter(pl.col("day") < day)
    earlier = [figures for run_day, figures in reported.items() if first <= run_day < day]
    of_day = dict(reported.get(day, {}))
    known_share = window_known_share = None
    if catalogue:
        known_share, window_known_share = _known_shares(window, day, catalogue.items)
        of_day |= {
            "eligible": catalogue.eligible,
            "unmanaged_share": catalogue.unmanaged_share,
        }
    if known_share is not None:
        of_day["known_share"] = known_share

    def count(name: str) -> Figure:
        value = today[name][0] if today.height else 0
        return Figure(value=value, usual=_usual(before[name].to_list()))

    def ratio(name: str) -> Figure:
        value, values = today[name][0] if today.height else None, before[name].to_list()
        return Figure(value=value, usual=_usual(values), spread=_spread(values))

    def share(name: str) -> Figure:
        values = [figures[name] for figures in earlier if name in figures]
        return Figure(value=of_day.get(name), usual=_usual(values), spread=_difference(values))

    days_before = window_days.filter(pl.col("day") < day)["day"].to_list()
    return DayProfile(
        rows=count("rows"),
        users=count("users"),
        items=count("items"),
        rows_per_user=ratio("rows_per_user"),
        repeats=ratio("repeats"),
        gap=_gap(days_before, day),
        unread_days=() if read_days is None else _unread(days_before, day, read_days),
        quarantine_share=share("quarantine_share"),
        bot_share=share("bot_share"),
        ignored_share=share("ignored_share"),
        conversions_rejected_share=share("conversions_rejected_share"),
        nulls={
            name.removeprefix("nulls."): share(name) for name in of_day if name.startswith("nulls.")
        },
        window_rows=int(window_days["rows"].sum()),
        window_days=(day - window_start).days + 1,
        eligible=share("eligible"),
        unmanaged_share=share("unmanaged_share"),
        known_share=share("known_share"),
        window_known_share=window_known_share,
        known_items=catalogue.known_items if catalogue else None,
    )


def _known_shares(
    window: pl.LazyFrame, day: date, catalogue_items: pl.Series
) -> tuple[float | None, float | None]:
    """The shares of the day's and of the window's rows whose item the catalogue has.

    None where there are no rows.
    """
    by_item = (
        window.group_by("item_id")
        .agg(window=pl.len(), day=(pl.col("day") == day).sum())
        .with_columns(
            known=pl.col("item_id").cast(pl.String).is_in(catalogue_items.unique().implode())
        )
        .collect()
    )
    known = by_item.filter("known")

    def share(name: str) -> float | None:
        rows = int(by_item[name].sum())
        return int(known[name].sum()) / rows if rows else None

    return share("day"), share("window")


def _usual(values: Sequence[float]) -> float | None:
    return float(median(values)) if len(values) >= _MIN_DAYS else None


def _spread(values: Sequence[float]) -> float | None:
    if len(values) < _MIN_DAYS:
        return None
    return max(max(values) / median(values), median(values) / min(values))


def _difference(values: Sequence[float]) -> float | None:
    if len(values) < _MIN_DAYS:
        return None
    return sorted(abs(value - median(values)) for value in values)[-2]


def _gap(days_before: Sequence[date], day: date) -> Figure:
    """days_before : those that have rows, ascending"""
    usual = _usual_gap(days_before, day)
    return Figure(value=None if usual is None else (day - days_before[-1]).days, usual=usual)


def _usual_gap(days_before: Sequence[date], day: date) -> int | None:
    """The longest gap that occurred twice within the 28 days before `day`.

    In the first two weeks, in which a week's closing day occurs once, the longest of all.
    """
    first = day - timedelta(days=USUAL_DAYS)
    days = [earlier for earlier in days_before if first <= earlier < day]
    if len(days) < _MIN_DAYS:
        return None
    longest = sorted(((later - earlier).days for earlier, later in pairwise(days)), reverse=True)
    return longest[1 if len(days) >= 2 * _MIN_DAYS else 0]


def _unread(
    days_before: Sequence[date], day: date, read_days: Collection[date]
) -> tuple[date, ...]:
    """`DayProfile.unread_days`; days_before : those that have rows, ascending"""
    first = day - timedelta(days=USUAL_DAYS)
    unread: list[date] = []
    for earlier, later in pairwise([*days_before, day]):
        usual = _usual_gap(days_before, earlier + timedelta(days=1))
        if later <= first or usual is None or (later - earlier).days <= usual:
            continue
        between = (earlier + timedelta(days=n) for n in range(1, (later - earlier).days))
        unread += [missing for missing in between if missing >= first and missing not in read_days]
    return tuple(unread)
