"""A block's rows as pieces for the spill: those that were in order straight from its columns, those that went through
the assembler from its lists, put together in order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from synth_pipeline.schema import Flag
from synth_pipeline.ticks import decimals
from synth_pipeline.ticks.assemble import Arrival, BookRows
from synth_pipeline.ticks.scan import Block
from synth_pipeline.ticks.scan_kernels import (
    ASK_SIZE,
    ASKS,
    BID,
    BIDS,
    CODE,
    DEPTH,
    EVENT_NS,
    FIRST_LEVEL,
    ID,
    OFF_MARKET,
    PRICE,
    QUOTE,
    SIDE,
    SIZE,
    TRADE,
)
from synth_pipeline.ticks.spill import BOOK_COLUMNS, MALFORMED, QUOTE_COLUMNS, TRADE_COLUMNS
from synth_pipeline.venues import Quote, Trade

_SEQ = 2


@dataclass(frozen=True)
class Timed:
    """A block whose records are timed."""

    block: Block
    times: np.ndarray
    """`recv_ns` of every record; of notes 0."""
    flags: np.ndarray
    first_seq: int

    def arrival(self, record: int) -> Arrival:
        """Where and when one record arrived."""
        seq, payload = self.first_seq + record, self.block.payload(record)
        return Arrival(int(self.times[record]), seq, int(self.flags[record]), payload)

    def _shared(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """The first four columns of every table, of the records of these numbers."""
        records = self.block.records
        return self.times[rows], records[rows, EVENT_NS], self.first_seq + rows, records[rows, ID]

    def trades(self, others: Iterable[tuple[Arrival, Trade]]) -> np.ndarray:
        """Columns of `spill.TRADE_COLUMNS`."""
        rows = np.flatnonzero(self.block.records[:, CODE] == TRADE)
        found = self.block.records[rows]
        flags = self.flags[rows] | Flag.LAST | found[:, OFF_MARKET] * Flag.OFF_MARKET
        piece = np.stack((*self._shared(rows), found[:, PRICE], found[:, SIZE], found[:, SIDE], flags))
        return _in_order(piece, _trades(list(others)))

    def quotes(self, others: Iterable[tuple[Arrival, Quote]]) -> np.ndarray:
        """Columns of `spill.QUOTE_COLUMNS`."""
        rows = np.flatnonzero(self.block.records[:, CODE] == QUOTE)
        prices = self.block.records[rows, BID : ASK_SIZE + 1].T
        piece = np.stack((*self._shared(rows), *prices, self.flags[rows] | Flag.LAST))
        return _in_order(piece, _quotes(list(others)))

    def book(self, others: list[BookRows]) -> tuple[np.ndarray, np.ndarray]:
        """Columns of `spill.BOOK_COLUMNS`, and price and size of all their levels; events without any are left out."""
        records = self.block.records
        rows = np.flatnonzero((records[:, CODE] == DEPTH) & (records[:, BIDS] + records[:, ASKS] > 0))
        bids, asks = records[rows, BIDS], records[rows, ASKS]
        events, starts = np.stack((*self._shared(rows), self.flags[rows], bids, asks)), records[rows, FIRST_LEVEL]
        levels = self.block.levels
        if others:
            more, their_levels = _book(others)
            their_starts = np.cumsum(more[5] + more[6]) - (more[5] + more[6]) + len(levels)
            events, starts = np.concatenate((events, more), axis=1), np.concatenate((starts, their_starts))
            order = np.argsort(events[_SEQ], kind="stable")
            events, starts, levels = events[:, order], starts[order], np.concatenate((levels, their_levels))
        counts = events[5] + events[6]
        total = int(counts.sum())
        if others or total != len(levels):
            levels = levels[np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(total)]
        return events, levels.T


def _in_order(piece: np.ndarray, more: np.ndarray) -> np.ndarray:
    if not more.shape[1]:
        return piece
    both = np.concatenate((piece, more), axis=1)
    return both[:, np.argsort(both[_SEQ], kind="stable")]


def _numbers(texts: list[str]) -> np.ndarray:
    values, valid = decimals.to_integers(texts)
    return np.where(valid, values, MALFORMED)


def _trades(rows: list[tuple[Arrival, Trade]]) -> np.ndarray:
    plain = [
        (at.recv_ns, trade.event_ns, at.seq, trade.trade_id, trade.side, _marks(at, trade.off_market))
        for at, trade in rows
    ]
    shared = np.array(plain, dtype=np.int64).reshape(-1, len(TRADE_COLUMNS) - 2).T
    prices, sizes = _numbers([trade.price for _, trade in rows]), _numbers([trade.size for _, trade in rows])
    return np.stack((*shared[:4], prices, sizes, *shared[4:]))


def _marks(at: Arrival, off_market: bool) -> int:
    return at.flags | Flag.LAST | (Flag.OFF_MARKET if off_market else 0)


def _quotes(rows: list[tuple[Arrival, Quote]]) -> np.ndarray:
    plain = [(at.recv_ns, quote.event_ns, at.seq, quote.update_id, at.flags | Flag.LAST) for at, quote in rows]
    shared = np.array(plain, dtype=np.int64).reshape(-1, len(QUOTE_COLUMNS) - 4).T
    texts = [[quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size] for _, quote in rows]
    numbers = _numbers([text for four in texts for text in four]).reshape(-1, 4).T
    return np.stack((*shared[:4], *numbers, shared[4]))


def _book(rows: list[BookRows]) -> tuple[np.ndarray, np.ndarray]:
    plain = [(*row[:5], len(row.bids), len(row.asks)) for row in rows]
    levels = [level for row in rows for side in (row.bids, row.asks) for level in side]
    numbers = _numbers([text for level in levels for text in level]).reshape(-1, 2)
    return np.array(plain, dtype=np.int64).reshape(-1, len(BOOK_COLUMNS)).T, numbers
