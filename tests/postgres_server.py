"""A PostgreSQL server of the distribution's package, on a Unix socket in a folder of its own, for one test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ROLE = "synth"


def programs() -> Path:
    """The folder of `initdb` and `pg_ctl`, or the test is skipped by name."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
    return versions[-1].parent


@contextmanager
def served(*databases: str) -> Iterator[dict[str, str]]:
    """Start a server with these databases; yields the address of each."""
    bin_ = programs()
    # The server refuses to run as root, and the path of a socket may have 107 characters.
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        if user:
            shutil.chown(folder, user["user"], user["group"])
        at = Path(folder)

        def call(name: str, *words: str) -> None:
            subprocess.run([bin_ / name, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)

        call("initdb", "-D", str(at / "data"), "-U", _ROLE, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        call("pg_ctl", "-D", str(at / "data"), "-w", "-l", str(at / "log"), "-o", options, "start")
        try:
            for name in databases:
                call("createdb", "-h", folder, "-U", _ROLE, name)
            yield {name: f"postgresql+psycopg2://{_ROLE}@/{name}?host={folder}" for name in databases}
        finally:
            call("pg_ctl", "-D", str(at / "data"), "-m", "immediate", "-w", "stop")
