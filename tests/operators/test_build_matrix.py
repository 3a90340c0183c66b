"""What the model learns from: everybody in the window but the robots and the shared ids."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_ops import history, paths
from recsys_ops.operators.build_matrix import BuildMatrixOperator
from recsys_ops.settings import Settings, load_settings, settings_file
from recsys_ops.storage import Storage
from recsys_ops.worker.spec import read_inputs, read_spec

DAY = date(2026, 3, 28)


def viewed(user: str, a_day: int, event_type: str = "view") -> pl.DataFrame:
    """A user with so many events on each of the 28 days up to `DAY`."""
    n = pl.int_range(28 * a_day, eager=True)
    day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    return pl.DataFrame({"n": n}).select(
        event_id=pl.format("{}-{}", pl.lit(user), "n"),
        user_id=pl.lit(user),
        item_id=pl.format("p{}", pl.col("n") % 50),
        event_type=pl.lit(event_type),
        event_time=pl.lit(day) + pl.duration(days=pl.col("n") // a_day),
        recorded_at=pl.lit(day) + pl.duration(days=pl.col("n") // a_day),
        quantity=pl.lit(1),
        value=pl.lit(None, pl.Float64),
    )


def test_slow_robots_and_shared_ids_are_left_out_of_the_model_and_named_with_their_reasons(settings: Settings) -> None:
    storage = Storage(settings.storage.root)
    people = [viewed(f"u{n}", 5, "cart") for n in range(80)]
    events = pl.concat([*people, viewed("robot", 20), viewed("0", 40, "purchase")])
    history.replace_days(storage, events, DAY - timedelta(days=27), DAY)
    storage.write_parquet(
        paths.catalogue(DAY), pl.DataFrame({"item_id": [f"p{n}" for n in range(50)], "status": "published", "stock": 1})
    )

    figures = BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {})
    assert figures["users_left_out"] == {"slow_bot": 1, "pseudo_user": 1}
    assert figures["events_left_out"] == 28 * 60
    assert figures["users"] == 80
    found = storage.read_parquet(paths.quarantine("build_matrix", DAY)).sort("user_id")
    assert found.select("user_id", "reason", "value").rows() == [
        ("0", "pseudo_user", "8.7 % of the window's events"),
        ("robot", "slow_bot", "every_day steady"),
    ]
    users = read_inputs(storage, read_spec(storage, DAY)).interactions.users
    assert sorted(users) == sorted(f"u{n}" for n in range(80))


def test_matrix_built_from_the_coded_days_is_the_one_built_from_the_history(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(settings.storage.root)
    people = [viewed(f"u{n}", 1 + n % 5, "cart") for n in range(30)]
    history.replace_days(storage, pl.concat([*people, viewed("robot", 20)]), DAY - timedelta(days=27), DAY)
    storage.write_parquet(
        paths.catalogue(DAY), pl.DataFrame({"item_id": [f"p{n}" for n in range(50)], "status": "published", "stock": 1})
    )

    def build() -> tuple[dict[str, Any], dict[str, str]]:
        return BuildMatrixOperator(task_id="build_matrix").run(DAY, settings, {}), read_spec(storage, DAY).inputs

    first = build()
    assert len(storage.list("coded")) == 28
    with monkeypatch.context() as patch:
        patch.delattr(history, "read")
        assert build() == first


def test_preset_reaches_the_matrix_where_the_settings_leave_its_keys_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = settings_file().read_text()
    (tmp_path / "recsys.yaml").write_text(
        re.sub(r"^  (weights|half_life_days|repeat_decay|bm25|min_\w+_events):.*\n", "", text, flags=re.M)
    )
    monkeypatch.setenv("RECSYS_INCLUDE", str(tmp_path))
    monkeypatch.setenv("RECSYS_CONFIDENCE__PRESET", "pa")
    load_settings.cache_clear()
    found = load_settings().confidence
    assert (found.weights["purchase"], found.repeat_decay, found.min_item_events, found.alpha) == (1, 0.8, 5, 16)
    load_settings.cache_clear()
