"""A stretch of time out of a huge CSV file that is sorted by time: sought by bisection, never scanned.

What belongs here: finding bytes by time, and what happens where the file is not quite sorted. How the file is written
is `ticks.csv_form`'s part, what a line means `ticks.csv_rows`'. The laws are told in `docs/sorted-csv.md`.

A probe reads a few lines and goes by their median time, so that a stray line misleads nobody. `tolerance` bytes more
than the window are read on both sides. Where the far half of them is not wholly outside the window, or rows lie far
from their place, more is looked at, up to `_FURTHEST` times as much. So every row of the window is found that lies no
further from its place than half of what was looked at.

A file may grow while it is read: each call asks for its size anew, and a last line without line end is not yet a row.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import IntArray
from synth_pipeline.ticks import csv_form, csv_index, csv_rows
from synth_pipeline.ticks.csv_index import CsvIndex
from synth_pipeline.ticks.csv_rows import Fault, Form, Kind, Rows, Unit

TOLERANCE = 16_384
"""Bytes read on both sides of a window, if nothing else is said."""
_FURTHEST = 128
_CHUNK = 1 << 24
_HEAD, _LONGEST_HEAD = 4096, 1 << 20
_SHOWN = 5
_BEYOND = 1 / 24
_NEVER = 2**63
Check = Callable[[Mapping[str, np.ndarray]], NDArray[np.uint8]]
"""Columns to a `Fault` per row: a law of the caller's."""
_UNKNOWN = Form((), 0, 0, 0, 0, settled=False)


@dataclass(frozen=True)
class Slice:
    """The rows of a window, in order of time; rows of one time in file order."""

    time_ns: IntArray
    columns: dict[str, np.ndarray]
    carried: int
    """1 when the first row is the last one before the window."""
    before_ns: int | None
    """Time of the last row before the window, None at the beginning of the file."""
    after_ns: int | None
    """Time of the first row after the window, None at the end of the file."""
    rejected: dict[str, int]
    """Rows of the window that could not be read, by reason."""
    rejected_at: list[int]
    """Bytes at which the first of them begin."""
    unsorted_at: IntArray
    """Bytes of what was read, in the window, beside it or while seeking it, at which time steps back."""
    unfinished_bytes: int
    """Length of a last line without line end, when the window reaches it."""
    bytes_read: int
    slice_bytes: int
    """Length of the lines of the window."""


class SortedCsv:
    """One CSV file, sorted by its time column up to a little disorder.

    `time` names the time column, `unit` the unit of its numbers, `columns` every column of a file without header (else
    they are called 0, 1, …). `index` is where to keep an index (`ticks.csv_index`), to be used from then on; making it
    scans the file once. What is left out is recognized by the first rows. Raises `InputError` naming the option
    when they do not tell, `NoDataError` when there is no whole line.
    """

    def __init__(
        self,
        path: Path,
        *,
        time: str | None = None,
        unit: Unit | None = None,
        columns: Sequence[str] = (),
        tolerance: int = TOLERANCE,
        index: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self.path, self.tolerance = path, tolerance
        self._index_place, self._progress = index, progress
        self._index: CsvIndex | None = None
        self._said = (time, unit, columns)
        self._identity = (-1, -1)
        self.form = _UNKNOWN
        with self._opened():
            pass  # so that a file that cannot be read is refused here

    @contextmanager
    def _opened(self) -> Iterator[_File]:
        """Open the file as it is now; look at its first rows again if it is another one, or had none."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{self.path} cannot be opened ({error.strerror}): check the path") from error
        try:
            found = os.fstat(descriptor)
            file = _File(self.path, descriptor, found.st_size)
            if self._identity != (found.st_dev, found.st_ino) or not self.form.settled:
                head = _head(file)
                self.form = csv_form.recognize(self.path, head, *self._said)
                self._probe_bytes = min(max(256, 5 * max(map(len, head.split(b"\n")[:8]))), 4096)
                self._identity = (found.st_dev, found.st_ino)
            file.form = self.form
            yield file
        finally:
            os.close(descriptor)

    def span(self) -> tuple[int, int] | None:
        """Return the times of the first and the last row of the file as it is now, None when it has none.

        Raises `InputError` when the file runs backwards.
        """
        with self._opened() as file:
            first = self._outermost(file, self.form.first_row, forward=True)
            last = self._outermost(file, file.size, forward=False)
        if first is not None and last is not None and first > last:
            raise _runs_backwards(self.path, self.form)
        return None if first is None or last is None else (first, last)

    def _outermost(self, file: _File, at: int, *, forward: bool) -> int | None:
        length = self._probe_bytes
        while True:
            rows = file.rows(at, at + length) if forward else file.rows(at - length, at)
            known = rows.time_ns[rows.has_time]
            if known.size:
                return int(known.min() if forward else known.max())
            if length >= file.size:
                return None
            length *= 4

    def read(
        self,
        start_ns: int,
        end_ns: int,
        kinds: Mapping[str, Kind],
        *,
        decimals: int = 8,
        carry_in: bool = False,
        check: Check | None = None,
    ) -> Slice:
        """Return the rows of [start_ns, end_ns), and the last one before them if `carry_in`.

        Exact columns are int64 in units of 10**-`decimals`. `check` may find a fault in rows that can be read. Raises
        `InputError` for an unknown column, a reversed window, a file that is not sorted, a window with no row that
        can be read.
        """
        if end_ns < start_ns:
            raise InputError(f"window from {start_ns} to {end_ns} ns ends before it starts: swap the two")
        with self._opened() as file:
            if missing := [name for name in kinds if name not in self.form.names]:
                raise InputError(f"{self.path} has no column {missing[0]!r}: it has {', '.join(self.form.names)}")

            def read(first: int, stop: int) -> Rows:
                rows = file.rows(first, stop, kinds, decimals)
                if check is None:
                    return rows
                return replace(rows, faults=np.where(rows.faults == 0, check(rows.columns), rows.faults))

            if self._index_place is not None:
                places = self._updated(file, self._index_place).places(start_ns, end_ns) or [(file.size, file.size)]
                rows = csv_rows.joined([read(*place) for place in places])
                rows = self._with_one_before(rows, places[0][0], start_ns, read)
                return _cut(file, rows, set(), start_ns, end_ns, carry_in=carry_in)
            search = _Search(file, self._probe_bytes, self.tolerance)
            low, _ = search.bracket(start_ns)
            _, high = search.bracket(end_ns, low)
            place = low.offset, max(low.offset, high.offset)
            rows = self._around(search, place, (start_ns, end_ns), read)
            return _cut(file, rows, search.strays, start_ns, end_ns, carry_in=carry_in)

    def index(self) -> CsvIndex:
        """Return the index of the file as it is now: rows, ties and unsorted places of all of it, after a scan of it.

        It is kept where `index` said, and used by `read`, which then misses no row wherever it lies.
        """
        with self._opened() as file:
            return self._updated(file, self._index_place)

    def _updated(self, file: _File, place: Path | None) -> CsvIndex:
        known = self._index or (csv_index.load(place) if place is not None else None)
        self._index = csv_index.updated(known, file.descriptor, file.form, file.rows, progress=self._progress)
        if place is not None and self._index is not known:
            csv_index.save(self._index, place)
        return self._index

    def _with_one_before(self, rows: Rows, first: int, start_ns: int, read: Callable[[int, int], Rows]) -> Rows:
        """Read further back while no row before the window is sound: the index knows of times, not of faults."""
        length = csv_index.BLOCK
        while first > self.form.first_row and not ((rows.faults == 0) & (rows.time_ns < start_ns)).any():
            first, end, length = max(first - length, self.form.first_row), first, 2 * length
            rows = csv_rows.joined([read(first, end), rows])
        return rows

    def _around(
        self, search: _Search, place: tuple[int, int], window: tuple[int, int], read: Callable[[int, int], Rows]
    ) -> Rows:
        """Read the place and what is around it, further where rows at the rim are of the window, or in no place."""
        (low, high), (start_ns, end_ns) = place, window
        before = after = self.tolerance
        while max(before, after) <= _FURTHEST * self.tolerance:
            first, stop = max(low - before, self.form.first_row), min(high + after, search.file.size)
            rows = read(first, stop)
            is_sound = rows.faults == 0
            time_ns, offsets = rows.time_ns[is_sound], rows.offsets[is_sound]
            early, late = time_ns[offsets < low - before // 2], time_ns[offsets >= high + after // 2]
            is_shaken = 4 * _displacement(time_ns, offsets) > min(before, after)
            goes_back = first > self.form.first_row and (
                is_shaken or not early.size or not search.latest_before(first) <= early.max() < start_ns
            )
            goes_on = stop < search.file.size and (
                is_shaken or not late.size or not end_ns <= late.min() <= search.earliest_after(stop)
            )
            if not goes_back and not goes_on:
                return rows
            before, after = before * (1 + goes_back), after * (1 + goes_on)
        raise InputError(
            f"{self.path} is not sorted by {self.form.names[self.form.time_field]} around byte "
            f"{low if goes_back else high}: rows lie {_FURTHEST * self.tolerance // 2} bytes or more from their place; "
            f"sort the file first"
        )


@dataclass
class _File:
    """One file as it was when it was opened, and how much was read of it since."""

    path: Path
    descriptor: int
    size: int
    form: Form = _UNKNOWN
    bytes_read: int = 0
    unfinished_bytes: int = 0
    """Length of a last line without line end, if the last read reached it."""

    def bytes(self, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, fewer where the file was cut in the meantime."""
        parts: list[bytes] = []
        while start < stop and (part := os.pread(self.descriptor, stop - start, start)):
            parts.append(part)
            start += len(part)
            self.bytes_read += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def rows(self, start: int, stop: int, kinds: Mapping[str, Kind] | None = None, decimals: int = 0) -> Rows:
        """Return the whole lines between two bytes; lines that these cut are left out."""
        form, kinds = self.form, dict(kinds or {})
        start, stop = max(start, form.first_row), min(stop, self.size)
        is_line_start = start == form.first_row
        start -= not is_line_start  # the byte before may be the line end that makes this a line start
        rest, parts = b"", []
        while fresh := self.bytes(start + len(rest), min(start + len(rest) + _CHUNK, stop)):
            data = rest + fresh
            begin = 0 if is_line_start else data.find(b"\n") + 1
            is_line_start = is_line_start or begin > 0
            end = data.rfind(b"\n") + 1 if is_line_start else 0
            if end > begin:
                parts.append(csv_rows.parse(data[begin:end], start + begin, form, kinds, decimals))
            start, rest = start + end, data[end:]
        self.unfinished_bytes = len(rest) if stop == self.size else 0
        return csv_rows.joined(parts or [csv_rows.parse(b"", start, form, kinds, decimals)])


@dataclass(frozen=True)
class _Probe:
    offset: int
    ns: int


@dataclass
class _Search:
    """The bisections of one call; both edges of a window share their probes."""

    file: _File
    probe_bytes: int
    tolerance: int
    strays: set[int] = field(default_factory=set)
    """Places whose time does not lie between those of the places around them."""
    _sound: list[_Probe] = field(default_factory=list)
    """Probes whose time does lie between."""
    _seen: dict[int, _Probe] = field(default_factory=dict)

    def bracket(self, target_ns: int, low: _Probe | None = None) -> tuple[_Probe, _Probe]:
        """Return two close places: what lies before the first is earlier than the target, from the second on it is not.

        What lies before `low`, if given, is known to be earlier. Raises `InputError` when the file runs backwards.
        """
        first, size = self.file.form.first_row, self.file.size
        low, high = low or self._probe(first, size), self._probe(max(size - 2 * self.probe_bytes, first), size)
        if low is None or high is None:
            return _Probe(first, target_ns), _Probe(size, target_ns)
        if high.ns < low.ns:
            raise _runs_backwards(self.file.path, self.file.form)
        low, high, turn = _Probe(low.offset if self._sound else first, low.ns), _Probe(size, high.ns), 0
        self._sound += [low, high]
        while high.offset - low.offset > max(4 * self.probe_bytes, self.tolerance // 2):
            middle, turn = self._next_place(low, high, target_ns, turn), turn + 1
            probe = self._plausible(middle, low, high)
            if probe is None:
                high = _Probe(middle, high.ns)
            elif probe.ns < target_ns:
                low = probe
            else:
                high = probe
        return low, high

    def latest_before(self, offset: int) -> int:
        """Return the latest time that the search met before a place, strays apart."""
        return max((probe.ns for probe in self._sound if probe.offset < offset), default=-_NEVER)

    def earliest_after(self, offset: int) -> int:
        """Return the earliest time that the search met from a place on, strays apart."""
        return min((probe.ns for probe in self._sound if probe.offset >= offset), default=_NEVER)

    def _next_place(self, low: _Probe, high: _Probe, target_ns: int, turn: int) -> int:
        """Return where to probe: a little beyond where the times on both sides let the target be expected.

        Beyond, on the side where more is left, so that both sides come close. Every fourth time it is the middle, so
        that no file takes many more probes than by halves; in bursty ones it is two thirds as many.
        """
        span = high.offset - low.offset
        share = min(max((target_ns - low.ns) / max(high.ns - low.ns, 1), 0.0), 1.0)
        beyond = _BEYOND if share < 0.5 else -_BEYOND
        place = low.offset + int(span * (0.5 if turn % 4 == 3 else share + beyond))
        return min(max(place, low.offset + self.probe_bytes), high.offset - 2 * self.probe_bytes)

    def _plausible(self, middle: int, low: _Probe, high: _Probe) -> _Probe | None:
        """Probe a place, or one near it where its time lies outside what is known of both sides."""
        first = self._probe(middle, high.offset)
        if first is None:
            return None
        near = (middle + sign * reach * self.tolerance for reach in (1, 4, 16, 64) for sign in (1, -1))
        probes = (self._probe(at, high.offset) for at in near if low.offset < at < high.offset)
        for probe in itertools.chain([first], probes):
            if probe is not None and low.ns <= probe.ns <= high.ns:
                self._sound.append(probe)
                return probe
            self.strays.add(first.offset)
        return first

    def _probe(self, at: int, limit: int) -> _Probe | None:
        """Return the place and time of the median of the lines after a byte, None when none begins before the limit."""
        length = self.probe_bytes
        while at not in self._seen or self._seen[at].offset >= limit:
            rows = self.file.rows(at, min(at + length, limit))
            known = np.flatnonzero(rows.has_time)
            if known.size:
                times = rows.time_ns[known].tolist()
                median = statistics.median_low(times)
                self._seen[at] = _Probe(int(rows.offsets[known[times.index(median)]]), median)
            elif at + length >= limit:
                return None
            length *= 4
        return self._seen[at]


def _cut(file: _File, rows: Rows, strays: set[int], start_ns: int, end_ns: int, *, carry_in: bool) -> Slice:
    """Part what was read into the window, the row before it, what cannot be read and what is not in its place."""
    known = np.flatnonzero(rows.has_time)
    time_ns = rows.time_ns[known]
    earlier, later = known[time_ns < start_ns], known[time_ns >= end_ns]
    within = known[(time_ns >= start_ns) & (time_ns < end_ns)]
    sound, bad = within[rows.faults[within] == 0], _bad(rows, within, earlier, later)
    _check_readable(file, rows, bad)
    before, behind = earlier[rows.faults[earlier] == 0], later[rows.faults[later] == 0]
    before_ns = int(rows.time_ns[before].max()) if before.size else None
    last = before[rows.time_ns[before] == before_ns][-1:] if carry_in else before[:0]
    keep = np.concatenate([last, sound[np.argsort(rows.time_ns[sound], kind="stable")]])
    unsorted = set(rows.offsets[known[1:][time_ns[1:] < time_ns[:-1]]].tolist())
    unsorted |= {at for at in strays if not len(rows) or not rows.offsets[0] <= at < rows.ends[-1]}
    return Slice(
        time_ns=rows.time_ns[keep],
        columns={name: column[keep] for name, column in rows.columns.items()},
        carried=last.size,
        before_ns=before_ns,
        after_ns=int(rows.time_ns[behind].min()) if behind.size else None,
        rejected=dict(Counter(Fault(fault).name.lower() for fault in rows.faults[bad].tolist())),
        rejected_at=rows.offsets[bad[:_SHOWN]].tolist(),
        unsorted_at=np.array(sorted(unsorted), dtype=np.int64),
        unfinished_bytes=0 if later.size else file.unfinished_bytes,
        bytes_read=file.bytes_read,
        slice_bytes=int((rows.ends[within] - rows.offsets[within]).sum()),
    )


def _displacement(time_ns: IntArray, offsets: IntArray) -> int:
    """Return how many bytes rows lie from their place, a tenth of them apart: a few strays may lie anywhere."""
    if (time_ns[1:] >= time_ns[:-1]).all():
        return 0
    return int(np.quantile(np.abs(offsets[np.argsort(time_ns, kind="stable")] - offsets), 0.9))


def _bad(rows: Rows, within: IntArray, earlier: IntArray, later: IntArray) -> IntArray:
    """Return the faulty rows of the window: by their time, or by their place where the time is what is wrong."""
    first = int(earlier[-1]) if earlier.size else -1
    behind = later[later > first]
    lost = np.flatnonzero(~rows.has_time)
    lost = lost[(lost > first) & (lost < (int(behind[0]) if behind.size else len(rows)))]
    return np.sort(np.concatenate([within[rows.faults[within] != 0], lost]))


def _check_readable(file: _File, rows: Rows, bad: IntArray) -> None:
    broken = bad[rows.faults[bad] == Fault.OPEN_QUOTE]
    if broken.size:
        raise InputError(
            f"{file.path} has a quote that its line does not close, at byte {rows.offsets[broken[0]]}: bytes cannot be "
            f"sought where line breaks lie within quotes; write the file without them"
        )
    if bad.size and rows.faults.all():
        reason, at = Fault(int(rows.faults[bad[0]])).name.lower(), int(rows.offsets[bad[0]])
        line = file.bytes(at, min(int(rows.ends[bad[0]]), at + 80)).decode("utf-8", "replace").strip()
        raise InputError(
            f"no row of the window in {file.path} can be read; the first, {line!r} at byte {at}, has {reason}: check "
            f"the columns, the time's unit and the decimals asked for"
        )


def _runs_backwards(path: Path, form: Form) -> InputError:
    name = form.names[form.time_field]
    return InputError(f"{path} runs backwards in {name}: sort it from the earliest row to the latest")


def _head(file: _File) -> bytes:
    """Return the first lines, whole, two that are neither blank nor a comment among them if there are."""
    length = _HEAD
    while True:
        head = file.bytes(0, min(length, file.size))
        csv_form.check_is_text(file.path, head)
        whole = head[: head.rfind(b"\n") + 1]
        if sum(bool(line.strip()) and not line.startswith(b"#") for line in whole.split(b"\n")) > 1:
            return whole
        if length >= file.size:
            if not whole:
                raise NoDataError(f"{file.path} holds no whole line yet: wait until it has one, or check the path")
            return whole
        if length >= _LONGEST_HEAD:
            raise InputError(f"{file.path} has no two lines in its first {length} bytes: it is no CSV file of rows")
        length *= 16
