"""``python -m recsys_ops``: see `recsys_ops.cli`."""

import sys

from recsys_ops.cli import main

sys.exit(main())
