"""The market as a day left it and the next one finds it: read from a day's files, written as the next one's first rows.

A day whose recording goes on from yesterday opens with yesterday's book and quote, flagged SNAPSHOT, at its first
nanosecond and before every record (`seq` -1), so that it can be read alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.schema import Flag, Scale
from synth_pipeline.ticks import decimals, parquet
from synth_pipeline.ticks.book import Book

Columns = dict[str, np.ndarray]
_QUOTE = ("bid_price", "bid_size", "ask_price", "ask_size", "update_id")


@dataclass(frozen=True)
class Opening:
    """Yesterday's close."""

    bids: np.ndarray
    """Shape (levels, 2): ticks and lots of `scale`."""
    asks: np.ndarray
    quote: np.ndarray | None
    """bid price, bid size, ask price, ask size, update id in ticks and lots; None when unknown."""
    scale: Scale
    update_id: int
    trade_id: int | None

    def in_units(self) -> np.ndarray:
        """Return price and size of everything in it in units of 1e-8, shape (rows, 2): bids, asks, quote."""
        levels = [self.bids, self.asks] + ([] if self.quote is None else [self.quote[:4].reshape(2, 2)])
        factors = [int(size.scaleb(decimals.WIRE_DECIMALS)) for size in (self.scale.tick_size, self.scale.lot_size)]
        return np.concatenate(levels) * np.array(factors, dtype=np.int64)

    def book_rows(self, day_start: int, tick: int, lot: int) -> Columns:
        """Return the book as rows of `schema.BOOK_LEVELS` on a grid of these units."""
        count = len(self.bids) + len(self.asks)
        prices, sizes = (self.in_units()[:count] // np.array([tick, lot])).T
        flags = np.full(count, Flag.SNAPSHOT, dtype=np.uint8)
        flags[-1:] |= np.uint8(Flag.LAST)
        return {
            **_shared(day_start, self.update_id, count),
            "side": np.repeat(np.array([1, -1], np.int8), [len(self.bids), len(self.asks)]),
            "price": prices,
            "size": sizes,
            "flags": flags,
        }

    def quote_rows(self, day_start: int, tick: int, lot: int) -> Columns:
        """Return the quote as a row of `schema.QUOTES`, none when it is unknown."""
        if self.quote is None:
            return schema.QUOTES.empty()
        (bid, bid_size), (ask, ask_size) = self.in_units()[-2:] // np.array([tick, lot])
        sides = {"bid_price": bid, "bid_size": bid_size, "ask_price": ask, "ask_size": ask_size}
        return {
            **_shared(day_start, int(self.quote[4]), 1),
            **{name: np.array([value]) for name, value in sides.items()},
            "flags": np.array([Flag.LAST | Flag.SNAPSHOT], dtype=np.uint8),
        }


def _shared(day_start: int, update_id: int, count: int) -> Columns:
    values = {"recv_ns": day_start, "event_ns": day_start, "seq": -1, "update_id": update_id}
    return {name: np.full(count, value) for name, value in values.items()}


def read_close(files: Mapping[str, Path]) -> Opening | None:
    """Read the book and the quote as a day's files leave them, None when its book was unknown at the end."""
    close = parquet.read_metadata(files["book_levels"]).get("close_update_id")
    if close is None:
        return None
    book, quote, trade_id = Book(), None, None
    for levels in parquet.row_groups(files["book_levels"]):
        book.feed(levels)
    for quotes in parquet.row_groups(files["quotes"], _QUOTE):
        quote = np.array([quotes[name][-1] for name in _QUOTE])
    for trades in parquet.row_groups(files["trades"], ("trade_id",)):
        trade_id = max(int(trades["trade_id"].max()), -1 if trade_id is None else trade_id)
    return Opening(book.bids, book.asks, quote, parquet.read_scale(files["book_levels"]), int(close), trade_id)
