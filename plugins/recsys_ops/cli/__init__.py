"""``recsys_ops <group> <command>``: looks into the stores through Airflow's connections.

The same as ``python -m recsys_ops``.
"""

import argparse
import sys
from collections.abc import Sequence

from recsys_ops.cli import history, live_lists, models, quarantine
from recsys_ops.errors import RecsysError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns the exit code: 0, or 1 after an error, which is one line on stderr. A wrong call exits
    with 2 and shows the usage.
    """
    parser = argparse.ArgumentParser(
        prog="recsys_ops",
        description="Shows and changes what recsys-ops has stored: the history, rejected rows, "
        "model versions, the lists in Redis. Finds them through Airflow's connections.",
    )
    groups = parser.add_subparsers(required=True, metavar="group")
    for group in (history, quarantine, models, live_lists):
        group.add_commands(groups)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except RecsysError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0
