"""What only the system's package manager brings."""

import os
import shutil
import subprocess


def install(program: str, *packages: str) -> str | None:
    """The path of a program, installed where it is missing and the suite may do that: as root on Debian or Ubuntu."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    if found or os.getuid() != 0 or not shutil.which("apt-get"):
        return found
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(
            ["apt-get", "-qq", *words],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    return shutil.which(program, path="/usr/sbin:/usr/bin")
