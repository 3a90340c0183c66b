"""Compiled functions on disk, written by several processes at a time."""

import os
import subprocess
import sys
from pathlib import Path

# Compiles variants; writing numba's index and then the machine code takes this many seconds.
COMPILE = """
import sys, time
from numba.core.caching import IndexDataCacheFile as File
from recsys_ops.jit import jit

seconds, *numbers = map(int, sys.argv[1:])
save_index, save_data = File._save_index, File._save_data
File._save_index = lambda *words: (time.sleep(seconds), save_index(*words))
File._save_data = lambda *words: (time.sleep(2 * (2 - seconds)), save_data(*words))


def variant(number):
    @jit()
    def constant():
        return number

    return constant


print("ready", flush=True)
sys.stdin.readline()
print(*[variant(number)() for number in numbers])
"""


def test_variants_that_two_processes_compile_at_once_are_not_confused(tmp_path: Path) -> None:
    """Takes seconds: one process writes the index last, the other the machine code."""
    script = tmp_path / "variants.py"
    script.write_text(COMPILE)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def start(*words: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, str(script), *words], env=env, **pipes)
        assert process.stdout.readline() == "ready\n"
        return process

    at_once = [start("1", "1"), start("2", "2")]
    for process in at_once:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120)[0] for process in at_once] == ["1\n", "2\n"]
    later, _ = start("1", "1", "2").communicate("go\n", timeout=120)
    assert later == "1 2\n"
