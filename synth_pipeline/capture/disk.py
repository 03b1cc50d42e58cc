"""From the socket's loop to the disk: bounded buffers of packed records, and the one thread that writes them.

The loop packs records into its instrument's buffer and seals the buffer into a block when it is large or a quarter of a
second old; the thread compresses each block into a frame, writes it and calls fdatasync about once a second. What waits
is bounded in bytes: beyond that, messages are dropped and counted, and a `dropped` note says so once there is room.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import CONTINUES, FRAME_BYTES, RECORD, SILENCE_NS, Kind, Record
from synth_pipeline.capture.logfile import LogFile
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument

NS_PER_HOUR = 3600 * NS_PER_SECOND
_RETRY_SECONDS = 0.25
_LAST_TRIES_SECONDS = 5.0
"""How long a full disk may delay the end of a recording."""


@dataclass
class _Loss:
    """What a full buffer made an instrument lose, until its log says so."""

    messages: int
    bytes: int
    since_ns: int


@dataclass(frozen=True)
class _Block:
    """Sealed records of one instrument and hour; without records, the order to close the hour's file."""

    instrument: Instrument
    path: Path
    records: bytearray
    sealed_ns: int


class Disk:
    """The writing side of a recording."""

    def __init__(self, folder: Path, capacity: int, sync_seconds: float = 1.0) -> None:
        self.folder, self.capacity = folder, capacity
        self.taken_bytes = 0
        """Bytes that went into buffers; only the loop changes it."""
        self.written_bytes = 0
        """Bytes of them that are in files, or given up; only the thread changes it."""
        self.file_bytes = 0
        """Compressed bytes written."""
        self.lost_bytes = 0
        """Bytes given up because the disk took nothing until the end."""
        self.fault: str | None = None
        """Why the disk takes nothing at present."""
        self._sync_seconds = sync_seconds
        self._blocks: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self._compressor = rawlog.Compressor()
        self._files: dict[Instrument, LogFile] = {}
        self._dirty: set[LogFile] = set()
        self._synced = time.monotonic()
        self._deadline: float | None = None
        self._writing: _Block | None = None
        self._lag_ns = 0
        self._thread = threading.Thread(target=self._run, name="raw-log-writer", daemon=True)

    @property
    def held_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self.taken_bytes - self.written_bytes

    @property
    def lag_seconds(self) -> float:
        """Age of the block in hand, or of the last one when it was written."""
        block = self._writing
        return (self._lag_ns if block is None else time.monotonic_ns() - block.sealed_ns) / NS_PER_SECOND

    def path_of(self, instrument: Instrument, received_ns: int) -> Path:
        """Return the file that holds an instrument's records of a time."""
        hour = datetime.fromtimestamp(received_ns // NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H")
        return self.folder / instrument.venue / instrument.symbol / f"{instrument}.{hour}.rawlog"

    def open(self, instrument: Instrument, path: Path) -> None:
        """Open a file before the thread runs, so that what is wrong with it is known at once.

        Raises `InputError` when another recorder holds it or it is no raw log, `OSError` when it cannot be written.
        """
        self._file(instrument, path)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, instrument: Instrument, path: Path, records: bytearray) -> None:
        """Hand over sealed records; none of them closes the file."""
        self._blocks.put(_Block(instrument, path, records, time.monotonic_ns()))

    def close(self) -> None:
        """Write what was handed over, sync and close; a disk that takes nothing is given up after five seconds."""
        self._deadline = time.monotonic() + _LAST_TRIES_SECONDS
        self._blocks.put(None)
        if self._thread.ident is not None:
            self._thread.join(2 * _LAST_TRIES_SECONDS)
            if self._thread.is_alive():
                # The thread hangs in the system; what it holds cannot be written, nor its files closed.
                self.lost_bytes += self.held_bytes
                return
        for instrument, file in list(self._files.items()):
            try:
                self._close(instrument)
            except OSError as error:
                self.fault = _one_line(file.path, error)

    def _run(self) -> None:
        while True:
            try:
                block = self._blocks.get(timeout=self._sync_seconds)
            except queue.Empty:
                self._sync()
                continue
            if block is None:
                self._sync()
                return
            self._writing = block
            self._settle(block)
            self._writing = None
            if time.monotonic() - self._synced >= self._sync_seconds:
                self._sync()

    def _settle(self, block: _Block) -> None:
        """Write a block, again and again while the disk refuses; the buffers fill meanwhile, up to their bound."""
        while True:
            try:
                self._write(block)
            except (OSError, InputError) as error:
                self.fault = _one_line(block.path, error)
            else:
                self.fault = None
                break
            if self._deadline is not None and time.monotonic() > self._deadline:
                self.lost_bytes += len(block.records)
                break
            time.sleep(_RETRY_SECONDS)
        self._lag_ns = time.monotonic_ns() - block.sealed_ns
        self.written_bytes += len(block.records)

    def _write(self, block: _Block) -> None:
        if not block.records:
            self._close(block.instrument)
            return
        file = self._file(block.instrument, block.path)
        frame = self._compressor.frame(block.records)
        file.append(frame)
        self.file_bytes += len(frame)
        self._dirty.add(file)

    def _file(self, instrument: Instrument, path: Path) -> LogFile:
        file = self._files.get(instrument)
        if file is not None and file.path == path:
            return file
        self._close(instrument)
        file = self._files[instrument] = LogFile(path)
        if file.torn_bytes:
            torn = rawlog.note("torn", time.time_ns(), time.monotonic_ns(), bytes=file.torn_bytes)
            file.append(self._compressor.frame(rawlog.pack(torn)))
        return file

    def _close(self, instrument: Instrument) -> None:
        file = self._files.pop(instrument, None)
        if file is not None:
            self._dirty.discard(file)
            try:
                file.sync()
            finally:
                file.close()

    def _sync(self) -> None:
        self._synced = time.monotonic()
        for file in self._dirty:
            try:
                file.sync()
            except OSError as error:
                self.fault = _one_line(file.path, error)
        self._dirty.clear()


def _one_line(path: Path, error: Exception) -> str:
    return f"{path}: {getattr(error, 'strerror', None) or error}"


class Log:
    """One instrument's records on their way to the file of their hour."""

    def __init__(self, disk: Disk, instrument: Instrument) -> None:
        self.instrument = instrument
        self.on_new_file: Callable[[], None] | None = None
        """Called when records go to another file than before."""
        self.dropped_messages = 0
        self.dropped_bytes = 0
        self._disk = disk
        self._pending = bytearray()
        self._start_ns = self._end_ns = 0
        self._path = Path()
        self._latest_ns = 0
        self._loss: _Loss | None = None
        self._is_open = False

    def open(self, received_ns: int) -> None:
        """Open the present hour's file. Raises `InputError` and `OSError` as `Disk.open` does."""
        self._set_hour(received_ns)
        self._disk.open(self.instrument, self._path)

    def append(self, received_ns: int, monotonic_ns: int, connection: int, kind: int, payload: bytes) -> None:
        """Take one record, or count it as dropped where the buffers are full."""
        if not self._start_ns <= received_ns < self._end_ns:
            self._turn(received_ns)
        self._latest_ns = received_ns
        disk, size = self._disk, RECORD.size + len(payload)
        full = disk.taken_bytes - disk.written_bytes + size > disk.capacity
        if full or (self._loss is not None and not self._report_loss(received_ns, monotonic_ns)):
            self._drop(received_ns, size)
            return
        pending = self._pending
        pending += RECORD.pack(received_ns, monotonic_ns, connection, kind, len(payload))
        pending += payload
        disk.taken_bytes += size
        if len(pending) >= FRAME_BYTES:
            self.seal()

    def note(self, record: Record) -> None:
        """Take a note of the recorder."""
        self.append(record.received_ns, record.monotonic_ns, record.connection, record.kind, record.payload)

    def tick(self, now_ns: int, monotonic_ns: int) -> None:
        """Seal what has waited, say what was lost, close the file of an hour that is over."""
        if self._loss is not None:
            self._report_loss(now_ns, monotonic_ns)
        self.seal()
        if self._is_open and now_ns >= self._end_ns + NS_PER_SECOND:
            self._disk.put(self.instrument, self._path, bytearray())
            self._is_open = False

    def seal(self) -> None:
        """Hand the buffer over to the thread."""
        if self._pending:
            self._disk.put(self.instrument, self._path, self._pending)
            self._pending = bytearray()
            self._is_open = True

    def _drop(self, received_ns: int, size: int) -> None:
        self.dropped_messages += 1
        self.dropped_bytes += size
        if self._loss is None:
            self._loss = _Loss(0, 0, received_ns)
        self._loss.messages += 1
        self._loss.bytes += size

    def _report_loss(self, received_ns: int, monotonic_ns: int) -> bool:
        """Write down what was lost once half of the room is free: not before, or every other message would be lost."""
        loss = self._loss
        if loss is None or self._disk.held_bytes > self._disk.capacity // 2:
            return False
        self._loss = None
        self.note(rawlog.note("dropped", received_ns, monotonic_ns, **vars(loss)))
        return True

    def _turn(self, received_ns: int) -> None:
        """Go over to another hour's file; over midnight both files say that the recording goes on."""
        day = received_ns - received_ns % NS_PER_DAY
        over_midnight = self._latest_ns < day <= received_ns and received_ns - self._latest_ns <= SILENCE_NS
        if over_midnight:
            self._continue(self._latest_ns)
        self.seal()
        self._set_hour(received_ns)
        if over_midnight:
            self._continue(day)
        if self.on_new_file is not None:
            self.on_new_file()

    def _continue(self, at_ns: int) -> None:
        packed = rawlog.pack(Record(at_ns, CONTINUES, Kind.EVENT))
        self._pending += packed
        self._disk.taken_bytes += len(packed)

    def _set_hour(self, received_ns: int) -> None:
        self._start_ns = received_ns - received_ns % NS_PER_HOUR
        self._end_ns = self._start_ns + NS_PER_HOUR
        self._path = self._disk.path_of(self.instrument, received_ns)
