"""Checksum files beside a download: `SHA-256  file name`, as sha256sum writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from synth_pipeline.errors import InputError


def check_sha256(path: Path, checksum: Path) -> None:
    """Raise `InputError` when a checksum file is there and does not fit the file."""
    if not checksum.is_file():
        return
    words = checksum.read_text(encoding="utf-8", errors="replace").split()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not words or words[0].lower() != found:
        raise InputError(f"{path} is not what {checksum.name} says it is (sha256 {found[:12]}…): fetch both again")
