"""A training job that cannot succeed: the result says why, and no version is written."""

import json
import re
from pathlib import Path

import pytest
from support.jobs import DAY, MakeJob, contents, result, spec_url

from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage
from recsys_ops.worker import EXIT_NO_RESULT, job, memory, training_run
from recsys_ops.worker.job import main


@pytest.mark.parametrize(
    ("memory_bytes", "would"),
    [
        (2**40, ""),
        (315 * 2**20, r"; training.factors = \d+ would fit"),
        (2**20, "; no number of .* fit"),
    ],
)
def test_without_enough_memory_the_message_says_what_would_fit(
    storage: Storage,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    memory_bytes: int,
    would: str,
):
    def full(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 9.3 GiB")

    (tmp_path / "memory.max").write_text(f"{memory_bytes}\n")
    monkeypatch.setattr(memory, "_CONTAINER_LIMIT", tmp_path / "memory.max")
    make_job(iterations=1, factors=9_000)
    monkeypatch.setattr(training_run, "fit", full)
    assert main(spec_url(storage)) == 1
    needs = rf"9000 factors need about [0-9,]{{9,}} bytes, the machine has [0-9,]{{9,}}{would}"
    assert re.search(
        rf"memory does not suffice \(Unable to allocate 9.3 GiB; {needs}\): lower",
        result(storage)["reason"],
    )
    # if the kernel kills the job without a message, the log has the reason
    warnings = [
        record
        for record in caplog.records
        if record.levelname == "WARNING" and re.search(needs, record.getMessage())
    ]
    assert bool(warnings) == bool(would)
    monkeypatch.setattr(job, "read_inputs", full)
    assert main(spec_url(storage)) == 1
    assert re.search(
        r"does not suffice \(Unable to allocate 9.3 GiB; [0-9,]{4,} bytes were read, the machine ",
        result(storage)["reason"],
    )


def test_a_champion_that_has_learned_from_the_held_out_day_is_refused(
    storage: Storage, make_job: MakeJob
):
    first = make_job(iterations=1)
    main(spec_url(storage))
    make_job(iterations=1, champion=first.version)
    assert main(spec_url(storage)) == 1
    assert "cannot be evaluated" in result(storage)["reason"]


INPUTS = ["train.npz", "full.npz", "holdout.npz", "users.parquet", "items.parquet"]


@pytest.mark.parametrize("name", [*INPUTS, "pinned.parquet", "baskets.npz", "trending.parquet"])
def test_a_damaged_input_is_named_and_no_model_is_written(
    name: str, storage: Storage, make_job: MakeJob
):
    spec = make_job(iterations=1)
    path = paths.job(DAY, name)
    data = bytearray(storage.get(path))
    data[len(data) // 2] ^= 1
    storage.put(path, bytes(data))
    assert main(spec_url(storage)) == 1
    outcome = result(storage)
    assert outcome["status"] == "failed"
    assert name in outcome["reason"]
    assert "run build_matrix again" in outcome["reason"]
    assert contents(storage, spec.version) == {}


@pytest.mark.parametrize("spec", [b"", b"{", b"[]", b'{"day": "2026-03-10"}'])
def test_a_broken_spec_fails_with_a_result(spec: bytes, storage: Storage):
    storage.put(paths.job(DAY, "spec.json"), spec)
    assert main(spec_url(storage)) == 1
    assert "is no job spec" in result(storage)["reason"]


def test_an_unknown_key_of_the_spec_is_refused(storage: Storage, make_job: MakeJob):
    spec = make_job(iterations=1).model_dump(mode="json") | {"iterationz": 3}
    storage.put(paths.job(DAY, "spec.json"), json.dumps(spec).encode())
    assert main(spec_url(storage)) == 1
    assert "iterationz" in result(storage)["reason"]


def test_a_missing_spec_fails_with_a_result(storage: Storage):
    assert main(spec_url(storage)) == 1
    assert "is not there" in result(storage)["reason"]


@pytest.mark.parametrize(
    "url", ["file:///tmp/spec.json", "nonsense", "file:///x/jobs/day=2026-3-1/spec.json"]
)
def test_a_url_that_is_no_job_spec_is_an_error(url: str):
    assert main(url) == 1


def test_a_missing_or_damaged_champion_fails_the_job(storage: Storage, make_job: MakeJob):
    make_job(iterations=1, champion="20260101-0000000000")
    assert main(spec_url(storage)) == 1
    assert "no finished model version 20260101-0000000000" in result(storage)["reason"]


def test_a_worker_without_its_storage_has_its_own_exit_code(tmp_path: Path):
    (tmp_path / "blob").write_text("no folder")
    assert main(f"file://{tmp_path}/blob/jobs/day={DAY}/spec.json") == EXIT_NO_RESULT
