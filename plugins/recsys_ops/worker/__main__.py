"""``python -m recsys_ops.worker <spec url>``: run one training job.

The exit code is 0 when the model version is complete.
"""

import logging
import sys
import time

if __name__ == "__main__":
    started = time.monotonic()  # before the imports, which take seconds and cost money, too
    from recsys_ops.worker.job import main
    from recsys_ops.worker.job_log import formatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if len(sys.argv) != 2:
        sys.exit("usage: python -m recsys_ops.worker <root>/jobs/day=<YYYY-MM-DD>/spec.json")
    sys.exit(main(sys.argv[1], started))
