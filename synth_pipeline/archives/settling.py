"""Rows of one day onto its integer grid: what fits becomes rows of `schema`, the rest goes to quarantine with a reason.

Rows of one book event may be spread over two batches: the last event of a batch waits for the next one, because only
its last row, whichever that will be, is marked LAST.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synth_pipeline.archives import Batch, Columns, Gap, Head, OrderAction, Rejection
from synth_pipeline.archives import window as windows
from synth_pipeline.archives.drafts import Draft, Fault, Piece
from synth_pipeline.archives.grid import Step, on_grid
from synth_pipeline.archives.ids import CountingIds
from synth_pipeline.schema import Flag

_LAST, _SNAPSHOT, _GAP_BEFORE = np.uint8(Flag.LAST), np.uint8(Flag.SNAPSHOT), np.uint8(Flag.GAP_BEFORE)
_LEAST_SIZE = {"trades": 1, "orders": 0, "order_events": 0, "book_levels": 0, "quotes": 0}
_SHARED = ("recv_ns", "event_ns", "seq")


class Settling:
    """Brings the drafts of one day, in order, onto its grid."""

    def __init__(self, head: Head, one_clock: bool, trade_ids_count_up: bool, gap_reason: str) -> None:
        self._tick, self._lot = Step.of(head.scale.tick_size), Step.of(head.scale.lot_size)
        self._one_clock, self._gap_reason = one_clock, gap_reason
        self._ids = CountingIds() if trade_ids_count_up else None
        self._held: Columns = {}
        """Rows of the book's last event so far, with the event's key."""
        self._book_ns: int | None = None
        self._window: np.ndarray | None = None
        self._quarantine: list[Rejection] = []
        self._gaps: list[Gap] = []

    def batch(self, draft: Draft, inside: np.ndarray) -> Batch:
        """Return the rows of a draft's records where they are of the day."""
        for record in np.flatnonzero(inside & (draft.faults != 0)).tolist():
            self._reject(draft, record, "raw", Fault(int(draft.faults[record])))
        sound = inside & (draft.faults == 0)
        tables: dict[str, list[Columns]] = {}
        for piece in draft.pieces() if sound.any() else ():
            for name, columns in self._settled(draft, piece, sound):
                tables.setdefault(name, []).append(columns)
        if "book_levels" in tables:
            tables["book_levels"] = [self._whole_events(_joined(tables["book_levels"]))]
        return self._batch({name: _in_order(_joined(parts), len(parts)) for name, parts in tables.items()})

    def rest(self) -> Batch:
        """Return what waits for an end that never came, and the holes in the ids."""
        held, self._held = self._held, {}
        if self._ids is not None:
            self._gaps += self._ids.gaps()
        if held:
            held = _marked(held)
            self._note_gaps(held)
        return self._batch({"book_levels": held} if held else {})

    def _batch(self, tables: Mapping[str, Columns]) -> Batch:
        quarantine, gaps = self._quarantine, self._gaps
        self._quarantine, self._gaps = [], []
        return Batch({name: columns for name, columns in tables.items() if len(columns["recv_ns"])}, gaps, quarantine)

    def _settled(self, draft: Draft, piece: Piece, sound: np.ndarray) -> list[tuple[str, Columns]]:
        if piece.table == "books":
            return self._from_windows(draft, piece, sound)
        numbers = {name: on_grid(each, self._tick) for name, each in piece.prices.items()}
        numbers |= {name: on_grid(each, self._lot) for name, each in piece.sizes.items()}
        faults = self._faults(piece, numbers)
        if self._ids is not None and piece.table == "trades":
            good = sound[piece.at] & (faults == 0)
            known = np.flatnonzero(good)
            faults[known], gapped = self._ids.check(piece.columns["trade_id"][known], draft.recv_ns[piece.at[known]])
            piece.columns["flags"][known[gapped]] |= _GAP_BEFORE
        self._reject_rows(draft, piece, sound, faults, piece.table)
        rows = np.flatnonzero(sound[piece.at] & (faults == 0))
        columns = {name: values[rows] for name, values in piece.columns.items()}
        columns |= {name: values[rows] for name, (values, _) in numbers.items()}
        columns |= self._clocks(draft, piece.at[rows])
        # Of book levels `_marked` knows the last, of order events the format.
        last = np.uint8(0) if piece.table in ("book_levels", "order_events") else _LAST
        columns["flags"] = columns.pop("clock") | columns["flags"] | last
        if piece.table == "order_events":
            self._note_gaps(columns, ("book_levels", "quotes"))
        return [(piece.table, columns)]

    def _faults(self, piece: Piece, numbers: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return the first thing wrong with each row, what the format found before what the grid finds."""
        found = piece.faults.copy()

        def note(where: np.ndarray, fault: Fault) -> None:
            found[where & (found == 0)] = fault

        least = _LEAST_SIZE[piece.table]
        for price_name, size_name in zip(piece.prices, piece.sizes, strict=True):
            (price, price_fits), (size, size_fits) = numbers[price_name], numbers[size_name]
            empty = _without_price(piece, (size == 0) & size_fits)
            valid = (piece.prices[price_name].valid | empty) & piece.sizes[size_name].valid
            note(~valid, Fault.MALFORMED_NUMBER)
            no_price = (piece.prices[price_name].mantissa <= 0) & ~empty
            note(no_price | (piece.sizes[size_name].mantissa < least), Fault.NOT_POSITIVE)
            note(~price_fits & ~empty, Fault.OFF_TICK)
            note(~size_fits, Fault.OFF_LOT)
            price[empty] = 0
        if piece.table == "quotes":
            (bid, bid_size), (ask, ask_size) = (
                (numbers[f"{side}_price"][0], numbers[f"{side}_size"][0]) for side in ("bid", "ask")
            )
            note((bid_size > 0) & (ask_size > 0) & (bid >= ask), Fault.CROSSED_QUOTE)
        return found

    def _from_windows(self, draft: Draft, piece: Piece, sound: np.ndarray) -> list[tuple[str, Columns]]:
        """Turn windows into level changes and quotes; a window with a fault leaves the book as it was."""
        (prices, price_fits), (sizes, size_fits) = (
            on_grid(piece.prices["price"], self._tick),
            on_grid(piece.sizes["size"], self._lot),
        )
        shown = piece.sizes["size"].mantissa != 0
        books = np.empty((len(prices), prices.shape[1], 4), np.int64)
        books[:, :, 0::2], books[:, :, 1::2] = np.where(shown, prices, 0), sizes
        faults = piece.faults.copy()
        for where, fault in (
            (~(piece.prices["price"].valid & piece.sizes["size"].valid), Fault.MALFORMED_NUMBER),
            (shown & ~price_fits, Fault.OFF_TICK),
            (~size_fits, Fault.OFF_LOT),
        ):
            faults[where.any(axis=(1, 2)) & (faults == 0)] = fault
        faults = np.where(faults == 0, windows.faults(books), faults)
        self._reject_rows(draft, piece, sound, faults, "book_levels")
        kept = np.flatnonzero(sound[piece.at] & (faults == 0))
        if not len(kept):
            return []
        books, first = books[kept], self._window is None
        before = np.zeros_like(books[0]) if self._window is None else self._window
        self._window = books[-1].copy()
        shared = self._clocks(draft, piece.at[kept]) | {name: column[kept] for name, column in piece.columns.items()}
        return [
            ("quotes", _quotes(books, before, shared, first=first)),
            ("book_levels", _levels(books, before, shared, first=first)),
        ]

    def _clocks(self, draft: Draft, records: np.ndarray) -> Columns:
        late = np.ones(len(records), np.bool_) if self._one_clock else draft.late[records]
        return {
            "recv_ns": draft.recv_ns[records],
            "event_ns": draft.event_ns[records],
            "seq": draft.first + records,
            "clock": np.where(late, np.uint8(Flag.BAD_CLOCK), np.uint8(0)),
        }

    def _whole_events(self, rows: Columns) -> Columns:
        """Return the events of the book that are over, each with its last row marked; hold the last one back."""
        rows = _joined([self._held, rows]) if self._held else rows
        self._mark_new_snapshots(rows)
        open_from = int(np.flatnonzero(np.append(True, np.diff(rows["event"]) != 0))[-1]) if len(rows["event"]) else 0
        self._held = {name: values[open_from:] for name, values in rows.items()}
        done = _marked({name: values[:open_from] for name, values in rows.items()})
        self._note_gaps(done)
        return done

    def _mark_new_snapshots(self, rows: Columns) -> None:
        """Note that something was lost before a full book that is not the day's first event."""
        if len(rows["event"]):
            begins = np.append(self._book_ns is not None, np.diff(rows["event"]) != 0)
            opens = begins & (rows["flags"] & _SNAPSHOT > 0)
            rows["flags"] = rows["flags"] | np.where(opens, _GAP_BEFORE, np.uint8(0))

    def _note_gaps(self, rows: Columns, streams: tuple[str, ...] = ("book_levels",)) -> None:
        times = rows["recv_ns"]
        for row in np.flatnonzero(rows["flags"] & _GAP_BEFORE).tolist():
            before = int(times[row - 1]) if row else self._book_ns
            if before is not None and before < times[row]:
                self._gaps += [(before, int(times[row]), stream, self._gap_reason, -1) for stream in streams]
        if len(times):
            self._book_ns = int(times[-1])

    def _reject_rows(self, draft: Draft, piece: Piece, sound: np.ndarray, faults: np.ndarray, stream: str) -> None:
        for row in np.flatnonzero(sound[piece.at] & (faults != 0)).tolist():
            self._reject(draft, int(piece.at[row]), stream, Fault(int(faults[row])))

    def _reject(self, draft: Draft, record: int, stream: str, fault: Fault) -> None:
        number, payload = draft.first + record, draft.payload(record)
        detail = f"row {number + 1} of the source"
        self._quarantine.append((int(draft.recv_ns[record]), number, stream, fault.reason, detail, payload))


def _without_price(piece: Piece, is_zero: np.ndarray) -> np.ndarray:
    """Return where a row needs no price: a side of a quote without size, an event that is of no order."""
    if piece.table == "quotes":
        return is_zero
    if piece.table == "order_events":
        return np.isin(piece.columns["action"], (0, OrderAction.CLEAR))
    return np.zeros(len(is_zero), np.bool_)


def _joined(parts: list[Columns]) -> Columns:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _in_order(rows: Columns, parts: int) -> Columns:
    """Return rows of several pieces in the order of their records."""
    if parts == 1:
        return rows
    order = np.argsort(rows["seq"], kind="stable")
    return {name: values[order] for name, values in rows.items()}


def _marked(rows: Columns) -> Columns:
    """Mark the last row of every event, leave GAP_BEFORE on its first only, and drop the event's key."""
    event = rows["event"]
    edge = np.append(np.diff(event) != 0, True)[: len(event)]
    flags = rows["flags"] | np.where(edge, _LAST, np.uint8(0))
    flags[~np.insert(edge[:-1], 0, True)[: len(event)]] &= ~_GAP_BEFORE
    return {name: rows[name] for name in rows if name != "event"} | {"flags": flags}


def _quotes(books: np.ndarray, before: np.ndarray, shared: Columns, *, first: bool) -> Columns:
    """Return the top of each window that differs from the one before."""
    tops = np.concatenate((before[None, 0], books[:, 0]))
    rows = np.flatnonzero((tops[1:] != tops[:-1]).any(axis=1) | (first & (np.arange(len(books)) == 0)))
    flags = shared["clock"][rows] | shared["flags"][rows] | _LAST
    columns = {name: shared[name][rows] for name in (*_SHARED, "update_id")} | {"flags": flags}
    names = ("ask_price", "ask_size", "bid_price", "bid_size")
    return columns | {name: books[rows, 0, column] for column, name in enumerate(names)}


def _levels(books: np.ndarray, before: np.ndarray, shared: Columns, *, first: bool) -> Columns:
    row, side, price, size = windows.changes(books, before)
    flags = shared["clock"][row] | shared["flags"][row]
    if first:
        flags[row == 0] |= _SNAPSHOT
    columns = {name: shared[name][row] for name in (*_SHARED, "update_id", "event")}
    return columns | {"side": side.astype(np.int8), "price": price, "size": size, "flags": flags}
