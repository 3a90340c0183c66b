"""Questions to a running Airflow."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from recsys_ops.storage.objects import Storage


def storage(site: SimpleNamespace) -> Storage:
    return Storage(site.env["RECSYS_STORAGE__ROOT"])


def until(true: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until a function returns something true; the limit is for a busy machine."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found
