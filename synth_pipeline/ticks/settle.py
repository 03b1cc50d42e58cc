"""Spilled rows to the day's integer grid: what lies on it goes to the store in ticks and lots, the rest to quarantine.

The grid is known only when the day is over, so this is the second pass. A rejected row's payload is read again from the
raw log; rows come in the order of the log, so one look through it is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synth_pipeline import schema
from synth_pipeline.archives import rawlog
from synth_pipeline.schema import Flag
from synth_pipeline.ticks.assemble import Rejected
from synth_pipeline.ticks.decimals import as_decimal
from synth_pipeline.ticks.sorted_rows import SortedRows
from synth_pipeline.ticks.spill import BOOK_COLUMNS, MALFORMED, QUOTE_COLUMNS, TRADE_COLUMNS, Spill
from synth_pipeline.venues import Quote, Trade, Venue

Columns = dict[str, np.ndarray]
_OFF_TICK, _NOT_POSITIVE, _MALFORMED, _CROSSED = range(1, 5)
_REASONS = ("", "off_tick", "not_positive", "malformed_number", "crossed_quote")
_LAST, _GAP_BEFORE = int(Flag.LAST), int(Flag.GAP_BEFORE)


class Grid(NamedTuple):
    """A day's tick and lot in units of 1e-8."""

    tick: int
    lot: int


class Payloads:
    """Payloads of a raw log by the number of their record, asked for in order."""

    def __init__(self, log: Path) -> None:
        self._records = enumerate(rawlog.read(log))
        self._last = (-1, b"")

    def of(self, seq: int) -> bytes:
        """Return the payload of one record."""
        while self._last[0] < seq:
            number, record = next(self._records)
            self._last = number, record.payload
        return self._last[1]


class Settling:
    """Brings one day's spilled rows onto its grid."""

    def __init__(self, grid: Grid, log: Path, venue: Venue, quarantine: SortedRows) -> None:
        self._grid, self._log, self._venue, self._quarantine = grid, log, venue, quarantine
        self.rejected: dict[str, int] = {}
        """Rows put into quarantine, by reason."""

    def trades(self, spill: Spill) -> Iterator[Columns]:
        """Yield rows of `schema.TRADES`, piece by piece."""
        payloads = Payloads(self._log)
        for (piece,) in spill.pieces():
            rows = dict(zip(TRADE_COLUMNS, piece, strict=True))
            reasons = self._fits(rows["price"], rows["size"], least_size=1)
            for row in np.flatnonzero(reasons).tolist():
                self._reject_trade(rows, row, _REASONS[reasons[row]], payloads)
            kept = _where(rows, reasons == 0)
            yield _typed(schema.TRADES, kept | self._scaled(kept["price"], kept["size"], "price", "size"))

    def quotes(self, spill: Spill) -> Iterator[Columns]:
        """Yield rows of `schema.QUOTES`, piece by piece. A side of neither price nor size is an empty one."""
        payloads = Payloads(self._log)
        for (piece,) in spill.pieces():
            rows = dict(zip(QUOTE_COLUMNS, piece, strict=True))
            bid, bid_size, ask, ask_size = (rows[name] for name in QUOTE_COLUMNS[4:8])
            bids, asks = self._fits(bid, bid_size, least_size=0), self._fits(ask, ask_size, least_size=0)
            bids[(bid == 0) & (bid_size == 0)] = asks[(ask == 0) & (ask_size == 0)] = 0
            reasons = np.where(bids == 0, asks, bids)
            reasons[(reasons == 0) & (bid >= ask) & (bid_size > 0) & (ask_size > 0)] = _CROSSED
            for row in np.flatnonzero(reasons).tolist():
                self._reject_quote(rows, row, _REASONS[reasons[row]], payloads)
            kept = _where(rows, reasons == 0)
            kept |= self._scaled(kept["bid_price"], kept["bid_size"], "bid_price", "bid_size")
            yield _typed(schema.QUOTES, kept | self._scaled(kept["ask_price"], kept["ask_size"], *QUOTE_COLUMNS[6:8]))

    def book_levels(self, spill: Spill) -> Iterator[Columns]:
        """Yield rows of `schema.BOOK_LEVELS`, whole events piece by piece; the last level kept of each is marked."""
        for piece, levels in spill.pieces(matrices=2):
            events = dict(zip(BOOK_COLUMNS, piece, strict=True))
            sizes = events["bids"] + events["asks"]
            event = np.repeat(np.arange(len(sizes)), sizes)
            side = np.repeat(np.tile(np.array([1, -1], np.int8), len(sizes)), piece[5:7].T.ravel())
            reasons = self._fits(levels[0], levels[1], least_size=0)
            for row in np.flatnonzero(reasons).tolist():
                self._reject_level(events, int(event[row]), int(side[row]), levels[:, row], _REASONS[reasons[row]])
            rows = {name: events[name][event] for name in BOOK_COLUMNS[:5]}
            rows |= {"side": side, "event": event} | self._scaled(levels[0], levels[1], "price", "size")
            kept = _where(rows, reasons == 0)
            edge = np.diff(kept.pop("event")) != 0
            # `edge` is one shorter than the rows, if there are any: the first opens an event, the last ends one.
            first, last = (np.insert(edge, at, True)[: len(kept["flags"])] for at in (0, len(edge)))
            kept["flags"] = np.where(first, kept["flags"], kept["flags"] & ~_GAP_BEFORE) | np.where(last, _LAST, 0)
            yield _typed(schema.BOOK_LEVELS, kept)

    def _fits(self, prices: np.ndarray, sizes: np.ndarray, least_size: int) -> np.ndarray:
        """Return the number of the reason against each row, 0 for none."""
        reasons = np.where(prices // self._grid.tick * self._grid.tick == prices, 0, _OFF_TICK)
        reasons[(prices <= 0) | (sizes < least_size)] = _NOT_POSITIVE
        reasons[(prices == MALFORMED) | (sizes == MALFORMED)] = _MALFORMED
        return reasons

    def _scaled(self, prices: np.ndarray, sizes: np.ndarray, price: str, size: str) -> Columns:
        return {price: prices // self._grid.tick, size: sizes // self._grid.lot}

    def _reject_trade(self, rows: Columns, row: int, reason: str, payloads: Payloads) -> None:
        payload = payloads.of(int(rows["seq"][row]))
        trade = next(
            message
            for message in self._venue.parse(payload, 0)
            if isinstance(message, Trade) and message.trade_id == rows["trade_id"][row]
        )
        self._reject(rows, row, "trades", reason, f"price {trade.price} size {trade.size}", payload)

    def _reject_quote(self, rows: Columns, row: int, reason: str, payloads: Payloads) -> None:
        payload = payloads.of(int(rows["seq"][row]))
        quote = next(message for message in self._venue.parse(payload, 0) if isinstance(message, Quote))
        detail = f"bid {quote.bid_price} x {quote.bid_size}, ask {quote.ask_price} x {quote.ask_size}"
        self._reject(rows, row, "quotes", reason, detail, payload)

    def _reject_level(self, events: Columns, event: int, side: int, level: np.ndarray, reason: str) -> None:
        price, size = (as_decimal(max(value, 0)) for value in level.tolist())
        detail = f"update {events['update_id'][event]}: {'bid' if side > 0 else 'ask'} price {price} size {size}"
        self._reject(events, event, "book_levels", reason, detail, b"")

    def _reject(self, rows: Columns, row: int, stream: str, reason: str, detail: str, payload: bytes) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        at = int(rows["recv_ns"][row]), int(rows["seq"][row])
        self._quarantine.add([Rejected(*at, stream, reason, detail, payload)])


def _where(rows: Columns, keep: np.ndarray) -> Columns:
    return rows if keep.all() else {name: values[keep] for name, values in rows.items()}


def _typed(table: schema.Table, rows: Columns) -> Columns:
    return {column.name: rows[column.name].astype(column.dtype, copy=False) for column in table.columns}
