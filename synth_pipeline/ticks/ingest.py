"""One day of raw records to typed ticks on the day's integer grid, at bounded memory.

The raw log is read once, in arrival order and in blocks of four megabytes: `scan` reads what it can straight from the
bytes, `sequence` finds the stretches that are in order, and all else goes through the venue's parser and the
`Assembler`. Rows are spilled in units of 1e-8; when the day's tick and lot are known, `settle` brings them onto that
grid and into the store. What comes out does not depend on where blocks begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import schema
from synth_pipeline.archives import rawlog
from synth_pipeline.errors import BadMessage, InputError, NoDataError
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import Flag, Scale
from synth_pipeline.ticks import decimals, parquet, quality, sequence
from synth_pipeline.ticks import scan_kernels as columns
from synth_pipeline.ticks.assemble import Arrival, Assembler, Hole
from synth_pipeline.ticks.clock import Clock
from synth_pipeline.ticks.day import DayTicks, file_metadata
from synth_pipeline.ticks.opening import Opening
from synth_pipeline.ticks.pieces import Timed
from synth_pipeline.ticks.recording import Recording
from synth_pipeline.ticks.scan import Block, Names, scan_ahead
from synth_pipeline.ticks.settle import Grid, Settling
from synth_pipeline.ticks.sorted_rows import SortedRows
from synth_pipeline.ticks.spill import Spill
from synth_pipeline.venues import BookUpdate, Head, Ignored, Message, Quote, Trade, Venue

BLOCK_BYTES = 4 * 1024 * 1024
"""Decompressed bytes that are scanned at once."""
_FEW, _MANY = 64, 1024
"""Records after which a stretch in order counts as long, and the most that go by hand at a time where none is."""
_STREAMS = ("trades", "book_levels", "quotes")


class _Reader:
    """Takes one day's raw log apart."""

    def __init__(
        self,
        venue: Venue,
        symbol: str,
        day_start: int,
        find_opening: Callable[[], Opening | None],
        place: Path,
    ) -> None:
        self.venue, self.symbol, self.day_start, self._find_opening = venue, symbol, day_start, find_opening
        self.opening: Opening | None = None
        self.rows = Assembler(venue)
        self.recording = Recording(day_start)
        self.others: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.accepted = self.named = self.trade_gaps = 0
        self.foreign = ""
        """Why the first message of another venue is that."""
        self.spills = {name: Spill(place / f"{name}.spill") for name in _STREAMS}
        self.prices, self.sizes = decimals.Steps(), decimals.Steps()
        self.quarantine = SortedRows(place, schema.QUARANTINE)
        self.gaps = SortedRows(place, schema.GAPS)
        self._clock = Clock()
        self._names = Names(venue, symbol)
        self._rule = sequence.rule_number(self.rows.rule)
        self._seq = 0

    def read(self, log: Path, messages: int, progress: Progress) -> None:
        """Read the whole log, of about so many messages."""
        for block in scan_ahead(frames_of(log), self._names):
            self._take_block(block)
            progress(self._seq, max(messages, self._seq), "messages read")

    def _take_block(self, block: Block) -> None:
        records = block.records
        count = len(records)
        timed = Timed(block, np.zeros(count, np.int64), np.zeros(count, np.int64), self._seq)
        at = 0
        for note in (*np.flatnonzero(records[:, columns.CODE] == columns.NOTE).tolist(), count):
            self._take_messages(timed, at, note)
            if note < count:
                self._note(block.payload(note), int(records[note, columns.RECEIVED]))
            at = note + 1
        self._count(records)
        self._spill(timed)
        self._seq += count

    def _note(self, payload: bytes, received_ns: int) -> None:
        first = self.recording.latest_ns == 0
        name = self.recording.note(payload, received_ns)
        if name == "start":
            self._clock.begin_anew()
        if name == "continues" and first:
            self.opening = self._find_opening()
        if name == "continues" and first and self.opening is not None:
            last_quote = None if self.opening.quote is None else int(self.opening.quote[4])
            self.rows.resume(self.opening.update_id, self.day_start, self.opening.trade_id, last_quote)

    def _take_messages(self, timed: Timed, at: int, stop: int) -> None:
        """Take the records [at, stop), all messages: what is in order as columns, the rest by hand."""
        records = timed.block.records[:stop]
        timed.times[at:stop], timed.flags[at:stop], steps = self._clock.time(records[at:])
        self.recording.messages(timed.times[at:stop], steps)
        by_hand = 1
        while at < stop:
            reached = self._go_on(timed, records, at)
            by_hand = 1 if reached - at > _FEW else min(2 * by_hand, _MANY)
            at = min(reached + by_hand, stop)
            for record in range(reached, at):
                self._take_by_hand(timed, record)

    def _go_on(self, timed: Timed, records: np.ndarray, at: int) -> int:
        reached, known, applied, last_book, last_trade = sequence.in_order(records, at, self._rule, self.rows.known())
        trade_ns = int(timed.times[last_trade]) if last_trade >= 0 else -1
        self.rows.went_on(known, applied, int(timed.times[last_book]), trade_ns)
        if known.book_id < 0:
            for record in (at + np.flatnonzero(records[at:reached, columns.CODE] == sequence.WAITING)).tolist():
                event_ns, last_id, first_id, previous = records[
                    record, columns.EVENT_NS : columns.PREVIOUS_ID + 1
                ].tolist()
                previous_id = None if previous < 0 else previous
                update = Head(self.symbol, "book_levels", first_id, last_id, previous_id, event_ns=event_ns)
                self.rows.wait(timed.arrival(record), update)
        return reached

    def _take_by_hand(self, timed: Timed, record: int) -> None:
        row = timed.block.records[record]
        refused, row[columns.CODE] = row[columns.CODE] == columns.REFUSED, sequence.TAKEN_BY_HAND
        at = timed.arrival(record)
        try:
            messages = self.venue.parse(at.payload, int(row[columns.RECEIVED]))
        except BadMessage as error:
            self.rows.reject(at, "raw", error.reason, str(error))
            return
        if refused:
            self._names.learn_symbol(messages[0].symbol)
        for message in messages:
            self._accept(at, message, timed.block.records[:record])

    def _accept(self, at: Arrival, message: Message, before: np.ndarray) -> None:
        if message.symbol is not None and message.symbol.upper() != self.symbol:
            self.others[message.symbol] += 1
            return
        if message.symbol is None and isinstance(message, BookUpdate) and self._met_others(before):
            self.rows.reject(at, "book_levels", "unnamed_snapshot", "it may be of any of the capture's symbols")
            return
        self.accepted += 1
        self.named += message.symbol is not None
        match message:
            case BookUpdate():
                self.rows.add_book(at, message)
            case Quote():
                self.rows.add_quote(at, message)
            case Trade():
                self.rows.add_trade(at, message)
            case Ignored():
                self.ignored[message.kind] += 1

    def _met_others(self, before: np.ndarray) -> bool:
        """Whether a message of another symbol came, in blocks before this one or among its records `before`."""
        return bool(self.others) or any(symbol not in (None, self.symbol) for symbol, _, _ in self._passed_over(before))

    def _passed_over(self, records: np.ndarray) -> Iterator[tuple[str | None, str | None, int]]:
        """Yield symbol, kind and number of the messages that the scanner took and nobody uses; of those of other
        symbols the kind is None."""
        for code in (columns.OTHER, columns.IGNORED):
            numbers, counts = np.unique(records[records[:, columns.CODE] == code, columns.ID], return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                if code == columns.OTHER:
                    yield self._names.symbol(number), None, count
                    continue
                symbol, _, stream = self._names.stream(number).partition("@")
                yield symbol.upper() or None, self.venue.stream_kind(stream), count

    def _count(self, records: np.ndarray) -> None:
        used = (columns.DEPTH, columns.QUOTE, columns.TRADE, sequence.WAITING)
        found = int(np.isin(records[:, columns.CODE], used).sum())
        self.accepted += found
        self.named += found
        for symbol, kind, count in self._passed_over(records):
            if symbol not in (None, self.symbol) or kind is None:
                self.others[str(symbol)] += count
                continue
            self.accepted += count
            self.named += count if symbol is not None else 0
            self.ignored[kind] += count

    def _spill(self, timed: Timed) -> None:
        rows = self.rows
        trades, quotes = timed.trades(rows.trades), timed.quotes(rows.quotes)
        events, levels = timed.book(rows.book)
        rows.trades, rows.quotes, rows.book = [], [], []
        for prices, sizes in ((trades[4], trades[5]), (quotes[4], quotes[5]), (quotes[6], quotes[7]), levels):
            self.prices.add(prices)
            self.sizes.add(sizes)
        self.spills["trades"].append(trades)
        self.spills["quotes"].append(quotes)
        self.spills["book_levels"].append(events, levels)
        self._set_aside(rows.settled_holes())

    def _set_aside(self, holes: list[Hole]) -> None:
        """Take gaps, and what the assembler rejected."""
        rejected, self.rows.rejected = self.rows.rejected, []
        for row in rejected:
            self.rejected[row.reason] += 1
            if row.reason == "wrong_venue" and not self.foreign:
                self.foreign = row.detail
        self.trade_gaps += sum(hole.stream == "trades" for hole in holes)
        self.quarantine.add(rejected)
        self.gaps.add(holes)

    def finish(self) -> list[tuple[int, int]]:
        """Close the day, and return what it covers: what still waited, and what was never there."""
        coverage = self.recording.coverage()
        start, end = coverage[0][0], coverage[-1][1]
        self._set_aside(self.rows.finish(end))
        self.gaps.add(self.recording.holes())
        if not self.spills["trades"].rows:
            self.gaps.add([Hole(start, end, "trades", "not_recorded", -1)])
        return coverage

    def grid(self) -> Grid:
        """Tick and lot of the day."""
        tick, lot = self.prices.coarsest(decimals.PRICE_MAJORITY), self.sizes.coarsest(1.0)
        if self.opening is None:
            return Grid(tick, lot)
        # Yesterday's book lies on yesterday's grid, which may be finer: it is carried over exactly.
        prices, sizes = self.opening.in_units().T
        return Grid(decimals.infer_grid(np.append(prices, tick), 1.0), decimals.infer_grid(np.append(sizes, lot), 1.0))


def ingest_frames(
    log: Path,
    venue: Venue,
    symbol: str,
    day_start: int,
    find_opening: Callable[[], Opening | None],
    place: Path,
    *,
    messages: int = 0,
    progress: Progress = silent,
) -> DayTicks:
    """Turn one day's raw log into the tick tables of a folder.

    `find_opening` is asked for yesterday's close only when the log says that the recording goes on from yesterday;
    `messages` is about how many there are, for the progress. Raises `InputError` when the log is damaged or of another
    venue, `NoDataError` when no message is of the symbol.
    """
    reader = _Reader(venue, symbol, day_start, find_opening, place)
    reader.read(log, messages, progress)
    _check_belongs(reader)
    coverage, grid, close = reader.finish(), reader.grid(), reader.rows.close_id
    scale = Scale(decimals.as_decimal(grid.tick), decimals.as_decimal(grid.lot), venue.inverse)
    metadata = file_metadata(coverage, venue.visible_levels, close)
    settling = Settling(grid, log, venue, reader.quarantine)
    files = {name: place / f"{name}.parquet" for name in (*_STREAMS, "gaps", "quarantine")}
    flagged = {Flag.BAD_CLOCK: 0, Flag.OFF_MARKET: 0}
    tables = _tables(reader, settling, grid, files["book_levels"])
    rows = {name: _write(files[name], name, pieces, scale, metadata, flagged) for name, pieces in tables.items()}
    # Where the venue's streams of different depth count apart, an id that two of them have says nothing.
    share_ids = reader.spills["quotes"].rows > 0 and not reader.rows.rule.snapshot_overwrites
    counts = _counts(reader, settling, flagged) | quality.figures(files, quotes_recorded=share_ids)
    return DayTicks(files, rows, scale, coverage, venue.visible_levels, close, counts)


def _counts(reader: _Reader, settling: Settling, flagged: Mapping[Flag, int]) -> dict[str, Any]:
    return {
        "messages": reader.accepted,
        "book_events": dict(reader.rows.counts),
        "ignored": dict(reader.ignored),
        "other_symbols": dict(reader.others),
        "quarantined": dict(reader.rejected + Counter(settling.rejected)),
        "flagged": {str(flag.name).lower(): count for flag, count in flagged.items()},
        "gaps": reader.rows.counts["gaps"],
        "trade_gaps": reader.trade_gaps,
        "notes": dict(reader.recording.notes),
        "quotes_from": "stream" if reader.spills["quotes"].rows else "book",
        "opened_from_yesterday": reader.opening is not None,
    }


def frames_of(log: Path) -> Iterator[list[bytes]]:
    """Yield frames, about four megabytes at a time."""
    frames: list[bytes] = []
    for frame in rawlog.blocks(log):
        if isinstance(frame, bytes):
            frames.append(frame)
        if sum(map(len, frames)) >= BLOCK_BYTES:
            yield frames
            frames = []
    if frames:
        yield frames


def _check_belongs(reader: _Reader) -> None:
    if reader.rejected["wrong_venue"] > reader.accepted:
        raise InputError(
            f"the capture is not of venue {type(reader.venue).__module__.rpartition('.')[2]} ({reader.foreign}): "
            "check --venue"
        )
    if reader.named:
        return
    if reader.others:
        raise NoDataError(
            f"no message of {reader.symbol}: the capture holds {', '.join(sorted(reader.others))}; check --symbol"
        )
    detail = "; ".join(f"{count} {reason}" for reason, count in reader.rejected.most_common(3)) or "no records"
    raise NoDataError(f"no readable message of {reader.symbol} ({detail}): check the file, --venue and --symbol")


def _tables(
    reader: _Reader, settling: Settling, grid: Grid, levels: Path
) -> dict[str, Iterator[Mapping[str, np.ndarray]]]:
    """The rows of every table, piece by piece, to be written in this order: `levels`, once written, gives the quotes
    where none were recorded, and quarantine grows until all other tables are written."""
    opening = reader.opening
    books = [] if opening is None else [opening.book_rows(reader.day_start, *grid)]
    return {
        "trades": settling.trades(reader.spills["trades"]),
        "book_levels": chain(books, settling.book_levels(reader.spills["book_levels"])),
        "quotes": _quotes(reader, settling, grid, levels),
        "gaps": _gaps(reader, levels),
        "quarantine": reader.quarantine.columns(parquet.ROW_GROUP),
    }


def _write(
    path: Path,
    name: str,
    pieces: Iterable[Mapping[str, np.ndarray]],
    scale: Scale,
    metadata: Mapping[str, str],
    flagged: dict[Flag, int],
) -> int:
    """Write one table and count the rows that are kept under a mark of doubt."""
    writer = parquet.TableWriter(path, schema.TICK_TABLES[name])
    for piece in pieces:
        writer.write(piece)
        for flag in flagged if "flags" in piece else ():
            flagged[flag] += int((piece["flags"] & flag > 0).sum())
    return writer.close(scale, **metadata)


def _are_quotes_from_book(reader: _Reader, levels: Path) -> bool:
    return not reader.spills["quotes"].rows and parquet.row_count(levels) > 0


def _quotes(reader: _Reader, settling: Settling, grid: Grid, levels: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The recorded quotes behind yesterday's last, or the top of the rebuilt book where none were recorded."""
    if _are_quotes_from_book(reader, levels):
        yield from quality.tops(levels)
        return
    if reader.opening is not None:
        yield reader.opening.quote_rows(reader.day_start, *grid)
    yield from settling.quotes(reader.spills["quotes"])


def _gaps(reader: _Reader, levels: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The gaps in order. What hides the book hides the quotes too that are made from it."""
    from_book = _are_quotes_from_book(reader, levels)
    for piece in reader.gaps.columns(parquet.ROW_GROUP):
        hidden = np.flatnonzero((piece["stream"] == "book_levels") & from_book)
        rows = np.sort(np.concatenate((np.arange(len(piece["stream"])), hidden)))
        repeated = {name: column[rows] for name, column in piece.items()}
        repeated["stream"][np.diff(rows, prepend=-1) == 0] = "quotes"
        yield repeated
