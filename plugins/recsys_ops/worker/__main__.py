"""``python -m recsys_ops.worker <spec url>``: run one training job; exit code 0 when the model version is complete."""

import logging
import sys

from recsys_ops.worker.job import main

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if len(sys.argv) != 2:
        sys.exit("usage: python -m recsys_ops.worker <root>/jobs/day=<YYYY-MM-DD>/spec.json")
    sys.exit(main(sys.argv[1]))
