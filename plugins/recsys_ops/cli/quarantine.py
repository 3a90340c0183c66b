"""``recsys_ops quarantine``: the rows that cleaning rejected."""

import argparse

from recsys_ops.cli.days import day_argument
from recsys_ops.cli.stores import configured_storage
from recsys_ops.cli.tables import format_frame
from recsys_ops.errors import DataError
from recsys_ops.settings import load_settings


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group `quarantine` to the command line."""
    commands = groups.add_parser("quarantine", help="rejected rows").add_subparsers(
        required=True, metavar="command"
    )
    show = commands.add_parser(
        "show", help="why the run of a day rejected rows; values may be personal data"
    )
    show.add_argument("day", type=day_argument, metavar="YYYY-MM-DD")
    show.add_argument("--step", metavar="STEP", help="list the rows that this step rejected")
    show.add_argument("--reason", metavar="CODE", help="with --step: only for this reason")
    show.add_argument(
        "--rows",
        type=int,
        default=20,
        metavar="N",
        help="with --step: the first N rows (default 20)",
    )
    show.set_defaults(run=show_rejections)
    replay = commands.add_parser(
        "replay", help="clean days again from raw, with today's contract and lists"
    )
    replay.add_argument("first", type=day_argument, metavar="YYYY-MM-DD")
    replay.add_argument(
        "last",
        type=day_argument,
        metavar="YYYY-MM-DD",
        nargs="?",
        help="default: the first day",
    )
    replay.add_argument("--reason", metavar="TEXT", help="why days may lose rows that they had")
    replay.set_defaults(run=replay_cleaning)


def show_rejections(arguments: argparse.Namespace) -> None:
    """Print a count and an example for each reason, or with a step its rejected rows."""
    from recsys_ops.ingest.quarantine import quarantine_summary, rejected_rows

    storage = configured_storage()
    if arguments.step is None and arguments.reason is not None:
        raise DataError("--reason needs --step: add the step that gave the reason")
    if arguments.step is None:
        rows = quarantine_summary(storage, arguments.day)
    else:
        rows = rejected_rows(
            storage, arguments.step, arguments.day, arguments.reason, arguments.rows
        )
    print(format_frame(rows) if rows.height else "nothing was rejected")


def replay_cleaning(arguments: argparse.Namespace) -> None:
    """Clean days again; print each run's rejections and each day's rows in the history."""
    from recsys_ops.ingest.commit import replay_days

    settings = load_settings()
    replayed = replay_days(
        configured_storage(),
        arguments.first,
        arguments.last or arguments.first,
        settings.cleaning,
        min_kept_share=settings.source.min_kept_share,
        reason=arguments.reason,
    )
    for run, steps in replayed["runs"].items():
        reasons = (
            f"{reason} {count:,}"
            for step in steps.values()
            for reason, count in step["reasons"].items()
        )
        print(f"the run of {run} rejects {', '.join(reasons) or 'nothing'}")
    for day, rows in replayed["rows"].items():
        print(f"{day}: {rows:,} rows in the history")
