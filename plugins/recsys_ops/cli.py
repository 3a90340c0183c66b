"""``recsys_ops <room> <command>``: looks into the stores, with Airflow's connections. Also ``python -m recsys_ops``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_ops.errors import DataError, RecsysError
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    import polars as pl

    from recsys_ops.history import Commit
    from recsys_ops.storage import Storage


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 with one line on stderr for an error of ours, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="recsys_ops", description=__doc__)
    rooms = parser.add_subparsers(required=True, metavar="room")

    history = rooms.add_parser("history", help="the table of clean events").add_subparsers(required=True, metavar="command")
    command = history.add_parser("status", help="days present, days missing, rows against the 28-day median, last version")
    command.add_argument("--days", type=int, default=28, metavar="N", help="show the last N days (default 28)")
    command.add_argument("--json", action="store_true", help="as JSON, for machines")
    command.set_defaults(run=history_status)

    quarantine = rooms.add_parser("quarantine", help="rejected rows").add_subparsers(required=True, metavar="command")
    command = quarantine.add_parser("show", help="why the run of a day rejected rows; values may be personal data")
    command.add_argument("day", type=date.fromisoformat, metavar="YYYY-MM-DD")
    command.add_argument("--step", metavar="STEP", help="the rows of this step one by one")
    command.add_argument("--reason", metavar="CODE", help="with --step: for this reason only")
    command.add_argument("--rows", type=int, default=20, metavar="N", help="with --step: the first N rows (default 20)")
    command.set_defaults(run=quarantine_show)
    command = quarantine.add_parser("replay", help="clean days anew from raw, with the contract and the lists of now")
    command.add_argument("first", type=date.fromisoformat, metavar="YYYY-MM-DD")
    command.add_argument("last", type=date.fromisoformat, metavar="YYYY-MM-DD", nargs="?", help="default: the first day alone")
    command.set_defaults(run=quarantine_replay)

    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except RecsysError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def history_status(arguments: argparse.Namespace) -> None:
    """The history up to yesterday (UTC)."""
    from recsys_ops import history

    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    status = history.status(_storage(load_settings()), yesterday)
    shown = status.days.tail(arguments.days)
    if arguments.json:
        last = status.last and {"version": status.last.version, "at": str(status.last.at), "facts": dict(status.last.facts)}
        missing, days = [str(day) for day in status.missing], shown.to_dicts()
        answer = {"url": status.url, "version": status.version, "last_commit": last, "missing": missing, "days": days}
        print(json.dumps(answer, indent=2, default=str))
        return
    rows, calendar = status.days["rows"].sum(), status.days["day"].to_list()
    print(f"{status.url}, version {status.version}: {rows:,} rows, {calendar[0]} … {calendar[-1]}")
    print(f"days missing: {', '.join(map(str, status.missing)) or 'none'}")
    print(f"days last written: {_in_words(status.last)}\n")
    print(f"{'day':<12}{'rows':>12}{'of median':>12}  written (UTC)")
    for day, count, share, written in shown.iter_rows():
        if count is None:
            print(f"{day!s:<12}{'missing':>12}")
        else:
            print(f"{day!s:<12}{count:>12,}{'–' if share is None else f'{share:.0%}':>12}  {written:%Y-%m-%d %H:%M}")


def quarantine_show(arguments: argparse.Namespace) -> None:
    """A count and a row for every reason, or the rows themselves."""
    from recsys_ops import quarantine

    storage = _storage(load_settings())
    if arguments.step is None and arguments.reason is not None:
        raise DataError("--reason needs --step")
    if arguments.step is None:
        rows = quarantine.summary(storage, arguments.day)
    else:
        rows = quarantine.rejected(storage, arguments.step, arguments.day, arguments.reason, arguments.rows)
    print(_table(rows) if rows.height else "nothing was rejected")


def quarantine_replay(arguments: argparse.Namespace) -> None:
    """What the steps of each run reject now, and each day's rows in the history."""
    from recsys_ops import ingest

    settings = load_settings()
    replayed = ingest.replay(_storage(settings), arguments.first, arguments.last or arguments.first, settings.cleaning)
    for run, found in replayed["runs"].items():
        reasons = (f"{reason} {count:,}" for step in found.values() for reason, count in step["reasons"].items())
        print(f"the run of {run} rejects {', '.join(reasons) or 'nothing'}")
    for day, rows in replayed["rows"].items():
        print(f"{day}: {rows:,} rows in the history")


def _table(rows: "pl.DataFrame") -> str:
    """As columns of text, the last one cut where a terminal ends."""
    texts = [rows.columns, *([_printable(value) for value in row] for row in rows.iter_rows())]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip()[:200] for row in texts)


def _printable(value: object) -> str:
    """What a visitor wrote may hold a terminal's commands."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def _in_words(commit: "Commit | None") -> str:
    if commit is None:
        return "not among the latest commits"
    facts = "".join(f", {name} {fact}" for name, fact in commit.facts.items())
    return f"version {commit.version} at {commit.at:%Y-%m-%d %H:%M} UTC{facts}"


def _storage(settings: Settings) -> "Storage":
    """Storage behind Airflow's connection, which may lie in Airflow's own database."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from recsys_ops.operators import base

    return base.storage(settings)
