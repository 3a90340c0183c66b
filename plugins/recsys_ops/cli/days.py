"""Days as arguments of commands."""

import argparse
from datetime import date

from recsys_ops.errors import SettingsError
from recsys_ops.run_day import read_day


def day_argument(text: str) -> date:
    """A day for `argparse`, which shows the message of a wrong one with the usage."""
    try:
        return read_day(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
