"""``recsys_ops history``: the table of clean events."""

import argparse
import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_ops.cli.days import day_argument
from recsys_ops.cli.stores import configured_storage
from recsys_ops.cli.tables import format_rows
from recsys_ops.run_day import format_days
from recsys_ops.settings import load_settings

if TYPE_CHECKING:
    from recsys_ops.history.table import HistoryCommit


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group `history` to the command line."""
    commands = groups.add_parser("history", help="the table of clean events").add_subparsers(
        required=True, metavar="command"
    )
    status = commands.add_parser(
        "status", help="days present, days missing, rows against the 28-day median, last commit"
    )
    status.add_argument(
        "day",
        type=day_argument,
        metavar="YYYY-MM-DD",
        nargs="?",
        help="show the generations of this day instead",
    )
    status.add_argument(
        "--days", type=int, default=28, metavar="N", help="show the last N days (default 28)"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=show_history_status)
    restore = commands.add_parser(
        "restore", help="make an earlier delivery of a day current, and commit the day from it"
    )
    restore.add_argument("day", type=day_argument, metavar="YYYY-MM-DD")
    restore.add_argument(
        "--generation",
        type=int,
        metavar="N",
        help="default: the newest with more rows of the day than the current one",
    )
    restore.add_argument("--reason", metavar="TEXT", help="why the day may lose rows that it has")
    restore.set_defaults(run=restore_delivery)


def show_history_status(arguments: argparse.Namespace) -> None:
    """Print the status of the history up to yesterday (UTC), or the generations of a day."""
    from recsys_ops.history.table import history_status

    if arguments.day:
        _show_generations(arguments.day, as_json=arguments.json)
        return
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    status = history_status(configured_storage(), yesterday)
    last_days = status.days.tail(arguments.days)
    if arguments.json:
        last_commit = status.last and {
            "version": status.last.version,
            "at": str(status.last.committed_at),
            "metadata": dict(status.last.metadata),
        }
        answer = {
            "url": status.url,
            "version": status.version,
            "last_commit": last_commit,
            "missing": [str(day) for day in status.missing],
            "days": last_days.to_dicts(),
        }
        print(json.dumps(answer, indent=2, default=str))
        return
    rows, days = status.days["rows"].sum(), status.days["day"].to_list()
    print(f"{status.url}, version {status.version}: {rows:,} rows, {days[0]} … {days[-1]}")
    print(f"days missing: {format_days(status.missing) or 'none'}")
    print(f"days last written: {_describe_commit(status.last)}\n")
    print(f"{'day':<12}{'rows':>12}{'of median':>12}  written (UTC)")
    for day, count, share, written in last_days.iter_rows():
        if count is None:
            print(f"{day!s:<12}{'missing':>12}")
        else:
            of_median = "–" if share is None else f"{share:.0%}"
            print(f"{day!s:<12}{count:>12,}{of_median:>12}  {written:%Y-%m-%d %H:%M}")


def restore_delivery(arguments: argparse.Namespace) -> None:
    """Restore a day; print what was restored, and the day's rows in the history."""
    from recsys_ops.ingest.commit import restore_day

    settings = load_settings()
    earlier, rows = restore_day(
        configured_storage(),
        arguments.day,
        settings.cleaning,
        min_kept_share=settings.source.min_kept_share,
        number=arguments.generation,
        reason=arguments.reason,
    )
    written = f"{earlier.written:%Y-%m-%d %H:%M} UTC"
    print(f"generation {earlier.number}, written {written}, is current again")
    print(f"{arguments.day}: {rows:,} rows in the history")


def _show_generations(day: date, *, as_json: bool) -> None:
    from recsys_ops.ingest.deliveries import deliveries_of

    found = [
        {
            "generation": delivery.number,
            "written": f"{delivery.written:%Y-%m-%d %H:%M}",
            "rows": delivery.rows[day] if as_json else f"{delivery.rows[day]:,}",
            "run_day": str(delivery.run_day),
            "run": delivery.run,
            "accepted": delivery.accepted,
        }
        for delivery in deliveries_of(configured_storage(), day)
    ]
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        print(format_rows(found))
        print(f"the last one, {found[-1]['generation']}, is current")
    else:
        print(f"no raw object holds {day}: it has expired or was never extracted")


def _describe_commit(commit: "HistoryCommit | None") -> str:
    if commit is None:
        return "none among the latest commits"
    metadata = "".join(f", {name} {value}" for name, value in commit.metadata.items())
    return f"version {commit.version} at {commit.committed_at:%Y-%m-%d %H:%M} UTC{metadata}"
