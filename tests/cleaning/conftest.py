"""The contract, and rows typed by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cleaning_rows import (
    CONTRACT_FILE,
)

from recsys_ops.cleaning import Contract, load_contract


@pytest.fixture(scope="session")
def contract() -> Contract:
    return load_contract(CONTRACT_FILE)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Contract]:
    """Makes the shipped contract with other keys for some columns.

    ``changed(event_time={"timezone": "Europe/Berlin"})``
    """

    def change(**columns: dict[str, Any]) -> Contract:
        document = yaml.safe_load(CONTRACT_FILE.read_text())
        for name, keys in columns.items():
            document["columns"][name] |= keys
        path = tmp_path / "contract.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_contract(path)

    return change
