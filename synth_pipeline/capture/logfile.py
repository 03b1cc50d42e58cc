"""A raw log open for appending: locked, its torn tail cut, frames written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from synth_pipeline.archives import rawlog
from synth_pipeline.errors import InputError

_LOCK_TRIES, _LOCK_PAUSE = 10, 0.05
"""A reader that asks whether the file is being written holds the lock for a moment."""


class LogFile:
    """One hour's file of one instrument. Raises `InputError` when another recorder holds it or it is no raw log."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self.torn_bytes = self._mend()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
            else:
                return
        raise InputError(f"{self.path} is being written by another recorder: stop that one, or give another --raw-dir")

    def _mend(self) -> int:
        """Cut what a crash left of a frame; return how many bytes that was."""
        size, self._end = os.fstat(self._file).st_size, rawlog.whole_bytes(self.path)
        if self._end < size:
            os.ftruncate(self._file, self._end)
        if not self._end:
            self._write(rawlog.MAGIC)
            os.fsync(self._file)
            for folder in self.path.parents[:3]:  # the instrument's, the venue's, and theirs
                _sync_folder(folder)
            return size
        return size - self._end

    def append(self, frame: bytes) -> None:
        """Write one frame at the end. Raises `OSError`, after which the file is as before and may be tried again."""
        try:
            self._write(frame)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise

    def _write(self, data: bytes) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._file, data[done:], self._end + done)
        self._end += done

    def sync(self) -> None:
        """Wait until what was written survives a power loss."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Give the file and its lock back."""
        os.close(self._file)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
