"""What may not become current without a reason: a loss of rows that is not plausible."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from statistics import median

from recsys_ops.errors import DataError

_USUAL_DAYS = 28
_WEEK = 7
_SHOWN = 5


def lost_rows(
    rows: Mapping[date, int], before: Mapping[date, int], min_kept_share: float
) -> list[str]:
    """A sentence for each day that would keep less than `min_kept_share` of its rows.

    rows, before : the day's rows as they would be, and as they are; other days of `before` are
        ignored.
    """
    return [
        f"{day} would have {count:,} of its {before[day]:,} rows"
        for day, count in rows.items()
        if before.get(day) and (not count or count < min_kept_share * before[day])
    ]


def unusually_empty(rows: Mapping[date, int], known: Mapping[date, int]) -> list[str]:
    """A sentence for each last day that is read for the first time, is empty, and usually is not.

    rows : of the days that were just read.
    known : rows of other days, and of the days that were read before.

    A last day is one after which no day has rows. An empty day before others with rows is taken
    for one on which the shop was closed: the source works, and the rows were in no delivery.

    Usual is the median of the same weekday in the four weeks before, as far back as a day is known,
    so that a shop may close on Sundays; without one, the median of all days before. Also unusual is
    a first load, and a load of a week or more, that finds nothing at all.
    """
    all_rows = {**rows, **known}
    with_rows = [day for day, count in all_rows.items() if count]
    nothing = not any(rows.values()) and any(day not in known for day in rows)
    if nothing and (not with_rows or len(rows) >= _WEEK):
        return [f"no rows were found, days read: {len(rows)}"]
    sentences = []
    for day in [day for day in rows if day not in known and day > max(with_rows)]:
        before = [
            day - timedelta(days=ago)
            for ago in range(1, _USUAL_DAYS + 1)
            if day - timedelta(days=ago) >= min(with_rows)
        ]
        same_weekday = [other for other in before if other.weekday() == day.weekday()]
        usual = median([all_rows.get(other, 0) for other in same_weekday or before] or [0])
        if usual:
            sentences.append(f"{day} has no rows, usually about {usual:,.0f}")
    return sentences


def accepted(losses: Sequence[str], reason: str | None) -> str | None:
    """The reason if it was needed to accept losses, else None.

    Raises DataError when there are losses but no reason.
    """
    if not losses or reason:
        return reason if losses else None
    more = f"; and {len(losses) - _SHOWN} more" if len(losses) > _SHOWN else ""
    raise DataError(
        f"refused, nothing was replaced: {'; '.join(losses[:_SHOWN])}{more}. "
        "How much may go: source.min_kept_share. Correct the cause, or give a reason to accept it: "
        "accept_reason in the trigger form, --reason on the command line"
    )
