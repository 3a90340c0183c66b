"""``python -m recsys_ops.demo``: runs the demo; with the argument ``ui``, its Airflow pages."""

import signal
import sys

from recsys_ops.demo.progress import Progress

if __name__ == "__main__":
    for ending in (signal.SIGINT, signal.SIGTERM):
        # either signal stops the servers on the way out
        signal.signal(ending, signal.default_int_handler)
    progress = Progress()
    with progress.stage("Load the packages"):
        from recsys_ops.demo import run
    sys.exit(run.command(progress, sys.argv[1:]))
