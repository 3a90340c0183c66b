"""``python -m recsys_ops``: the command line of `recsys_ops.cli`."""

import sys

from recsys_ops.cli import main

sys.exit(main())
