"""``python docs/tutorial/servers.py``: an embedded PostgreSQL and Redis below $SHOP until Ctrl-C, for whom has none at hand."""

import os
import signal
from pathlib import Path

from recsys_ops.demo import services

if __name__ == "__main__":
    home = Path(os.environ["SHOP"])
    with (
        services.postgres(home / "postgres") as server,
        services.redis_server(home / "redis", int(os.environ["SHOP_REDIS_PORT"])),
    ):
        for name in ("shop", "airflow"):
            services.create_database(server, name)
        print("PostgreSQL and Redis are running; Ctrl-C stops them.", flush=True)
        signal.sigwait([signal.SIGINT, signal.SIGTERM])
