"""``python docs/tutorial/servers.py``: run a PostgreSQL and a Redis in $SHOP until Ctrl-C.

For readers who have no servers of their own.
"""

import contextlib
import os
import signal
from pathlib import Path

from recsys_ops.demo import services


def main(home: Path, redis_port: int) -> None:
    """Run both servers, with a database for the shop and one for Airflow."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        services.postgres(home / "postgres") as server,
        services.redis_server(home / "redis", redis_port),
    ):
        for name in ("shop", "airflow"):
            services.create_database(server, name)
        print("PostgreSQL and Redis are running; Ctrl-C stops them.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main(Path(os.environ["SHOP"]), int(os.environ["SHOP_REDIS_PORT"]))
