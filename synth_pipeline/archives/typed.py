"""Drafts to typed rows of one day: the passes that every row archive shares.

The first pass (`scan`) finds the tick and the lot that the day's numbers lie on, and when the source recorded; the
second (`batches`) brings the rows onto that grid, a bounded batch at a time, and what does not fit to quarantine. What
comes out does not depend on how the file is cut into batches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from synth_pipeline.archives import Batch, Head, RowArchive, is_plain
from synth_pipeline.archives.drafts import Clock, Draft, Fault, Piece, numbered, settled
from synth_pipeline.archives.fields import NO_TIME
from synth_pipeline.archives.grid import PRICE_MAJORITY, Tally
from synth_pipeline.archives.settling import Settling
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Scale, day_of, day_start_ns

CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes of a file that are read at once."""
BREAK_NS = 900 * NS_PER_SECOND
"""A file of rows does not say when its source recorded: this long without any row ends a stretch (a session break)."""
_LATE_SHARE = 0.1


class TypedArchive(RowArchive):
    """A row archive whose reader yields drafts."""

    one_clock: ClassVar[bool] = False
    """The source has no receive time: the exchange's stands for it, and every row is flagged BAD_CLOCK."""
    trade_ids_count_up: ClassVar[bool] = False
    """Each trade's id is the one before plus 1."""
    gap_reason: ClassVar[str] = "reconnected"
    """What a book row flagged GAP_BEFORE means here."""
    separator: ClassVar[bytes] = b"\n"
    """What ends a record in the file."""

    @abstractmethod
    def drafts(self, path: Path, symbol: str | None, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Draft]:
        """Yield the records of one symbol (None: of all), unreadable ones included, in file order."""

    def drafts_of_day(self, path: Path, symbol: str, day: date) -> Iterator[Draft]:  # noqa: ARG002 - who can, seeks
        """Yield records of one symbol, all of a day among them."""
        return self.drafts(path, symbol)

    @abstractmethod
    def tables(self, path: Path) -> tuple[str, ...]:
        """Return the tables that the source records: of `schema`, or `order_events`."""

    @abstractmethod
    def preamble(self, path: Path) -> bytes:
        """Return what stands before the first record."""

    def visible_levels(self, path: Path) -> int:  # noqa: ARG002 - most sources show all
        """Return how many levels a side the source shows; 0 when all."""
        return 0

    def scale(self, prices: Tally, sizes: Tally) -> Scale:
        """Return the grid of a day with these numbers."""
        return Scale(prices.step(PRICE_MAJORITY).size, sizes.step(1.0).size)

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the records' times."""
        found: set[int] = set()
        for _, times in settled(self.drafts(path, None)):
            found |= set((times[times != NO_TIME] // NS_PER_DAY).tolist())
        return [day_of(number * NS_PER_DAY) for number in sorted(found)]

    def scan(self, path: Path, symbol: str, day: date) -> Head:
        """Read the day once: its grid and coverage."""
        prices, sizes, clock, faults = Tally(), Tally(), Clock(day_start_ns(day)), Counter[str]()
        coverage: list[tuple[int, int]] = []
        records = rows = 0
        for draft, times in settled(numbered(self.drafts(path, symbol))):
            inside = clock.within(draft, times)
            sound = inside & (draft.faults == 0)
            records += int(inside.sum())
            _count(faults, draft.faults[inside])
            rows += _tally(draft, sound, prices, sizes, faults)
            _extend(coverage, draft.recv_ns[sound])
        self._check(path, symbol, day, records, rows, clock.late, faults)
        visible = self.visible_levels(path)
        return Head(self.scale(prices, sizes), coverage, self.tables(path), visible, records, clock.late)

    def _check(
        self, path: Path, symbol: str, day: date, records: int, rows: int, late: int, faults: Counter[str]
    ) -> None:
        if not records:
            days = ", ".join(each.isoformat() for each in self.days(path)) or "none"
            held = ", ".join(self.symbols(path)) or "no named symbol"
            raise NoDataError(f"{path} holds nothing of {symbol} on {day}: its days are {days}, its symbols {held}")
        if not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in faults.most_common(3))
            raise NoDataError(f"{path} holds no good row of {symbol} on {day} ({reasons}): check the file and its form")
        if late > max(20, _LATE_SHARE * records):
            raise InputError(f"{path} is not in the order of time: {late} of {records} rows are late; sort it first")

    def batches(
        self, path: Path, symbol: str, day: date, head: Head, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[Batch]:
        """Read the day again, on the grid that the first reading found."""
        clock, settling = (
            Clock(day_start_ns(day)),
            Settling(head, self.one_clock, self.trade_ids_count_up, self.gap_reason),
        )
        for draft, times in settled(numbered(self.drafts(path, symbol, chunk_bytes))):
            inside = clock.within(draft, times)
            if inside.any():
                yield settling.batch(draft, inside)
        yield settling.rest()

    def keep(self, path: Path, symbol: str, day: date, place: Path) -> Path:
        """Write the day's records of one symbol into a folder, as they came; plain stays plain, else zstd is used."""
        kept = place / ("archive" if is_plain(path) else "archive.zst")
        clock = Clock(day_start_ns(day))
        with kept.open("xb") as raw, _writer(raw, plain=is_plain(path)) as file:
            file.write(self.preamble(path))
            for draft, times in settled(self.drafts_of_day(path, symbol, day)):
                rows = np.flatnonzero(clock.within(draft, times))
                file.write(self._as_they_came(draft, rows))
        return kept

    def _as_they_came(self, draft: Draft, rows: np.ndarray) -> bytes:
        """Return records of a draft; a last line that was cut stays without its end."""
        if draft.payloads is None:
            return b"".join(draft.payload(row) + self.separator for row in rows.tolist())
        is_torn = len(rows) > 0 and draft.faults[rows[-1]] == Fault.TORN_LINE
        return draft.payloads(rows)[:-1] if is_torn else draft.payloads(rows)


def _writer(raw: BinaryIO, *, plain: bool) -> BinaryIO:
    import zstandard

    return raw if plain else zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False)


def _tally(draft: Draft, sound: np.ndarray, prices: Tally, sizes: Tally, faults: Counter[str]) -> int:
    """Count the numbers of a draft's rows, and the rows without a fault."""
    rows = 0
    if not sound.any():
        return rows
    for piece in draft.pieces():
        inside = sound[piece.at]
        found = np.where((piece.faults == 0) & ~_are_numbers(piece), np.uint8(Fault.MALFORMED_NUMBER), piece.faults)
        good = inside & (found == 0)
        _count(faults, found[inside])
        rows += int(good.sum())
        shaping = good if piece.shapes_grid is None else good & piece.shapes_grid
        for numbers in piece.prices.values():
            prices.add(numbers.at(shaping))
        for numbers in piece.sizes.values():
            sizes.add(numbers.at(shaping))
    return rows


def _are_numbers(piece: Piece) -> np.ndarray:
    """Return where prices and sizes are numbers that a market may show; what is of no size needs no price."""
    sound = np.ones(len(piece.at), np.bool_)
    for price, size in zip(piece.prices.values(), piece.sizes.values(), strict=True):
        each = ((price.valid & (price.mantissa > 0)) | (size.mantissa == 0)) & size.valid & (size.mantissa >= 0)
        sound &= each.all(axis=tuple(range(1, each.ndim)))
    return sound


def _count(faults: Counter[str], found: np.ndarray) -> None:
    numbers, counts = np.unique(found[found != 0], return_counts=True)
    faults.update(
        {Fault(number).reason: count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}
    )


def _extend(coverage: list[tuple[int, int]], times: np.ndarray) -> None:
    """Add rising times to the stretches in which the source recorded."""
    if not len(times):
        return
    breaks = np.flatnonzero(np.diff(times) > BREAK_NS)
    firsts, lasts = times[np.append(0, breaks + 1)].tolist(), times[np.append(breaks, len(times) - 1)].tolist()
    if coverage and firsts[0] - coverage[-1][1] < BREAK_NS:
        firsts[0] = coverage.pop()[0]
    coverage += [(first, last + 1) for first, last in zip(firsts, lasts, strict=True)]
