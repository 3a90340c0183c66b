"""``recsys_ops history``: the table of clean events."""

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_ops.cli.stores import configured_storage

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
        "--days", type=int, default=28, metavar="N", help="show the last N days (default 28)"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=show_history_status)


def show_history_status(arguments: argparse.Namespace) -> None:
    """Print the status of the history up to yesterday (UTC)."""
    from recsys_ops.history.table import history_status

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
    print(f"days missing: {', '.join(map(str, status.missing)) or 'none'}")
    print(f"days last written: {_describe_commit(status.last)}\n")
    print(f"{'day':<12}{'rows':>12}{'of median':>12}  written (UTC)")
    for day, count, share, written in last_days.iter_rows():
        if count is None:
            print(f"{day!s:<12}{'missing':>12}")
        else:
            of_median = "–" if share is None else f"{share:.0%}"
            print(f"{day!s:<12}{count:>12,}{of_median:>12}  {written:%Y-%m-%d %H:%M}")


def _describe_commit(commit: "HistoryCommit | None") -> str:
    if commit is None:
        return "none among the latest commits"
    metadata = "".join(f", {name} {value}" for name, value in commit.metadata.items())
    return f"version {commit.version} at {commit.committed_at:%Y-%m-%d %H:%M} UTC{metadata}"
