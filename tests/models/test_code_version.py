"""The digest of the code depends only on the sources that determine a model's numbers."""

import shutil
from pathlib import Path

import pytest

import recsys_ops
from recsys_ops.models.code_version import code_digest


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("als/cpu.py", True),
        ("evaluation/metrics.py", True),
        ("interactions/matrix.py", True),
        ("lists/build.py", True),
        ("jit.py", True),
        ("worker/training_run.py", True),
        ("worker/job_log.py", False),
        ("worker/memory.py", False),
        ("storage/objects.py", False),
    ],
)
def test_only_sources_that_compute_a_model_change_the_digest(
    source: str, changes: bool, tmp_path: Path
) -> None:
    package = shutil.copytree(Path(recsys_ops.__file__).parent, tmp_path / "recsys_ops")
    before = code_digest(package)
    assert before == code_digest()
    with (package / source).open("a") as file:
        file.write("# a comment\n")
    assert (code_digest(package) != before) == changes
