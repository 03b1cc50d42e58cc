"""Tick rows in the words of Binance USD-M: what a recorder of the simulated venue would have kept, for a replay.

Each event goes out at once: its level changes as one `depthUpdate`, its new touch as one `bookTicker`, its trades. A
whole book is the answer to a depth request. Ids are those of the rows, so that ingesting the frames gives the rows
again (stamps in ms, as the wire has them).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import NamedTuple

import numpy as np

from synth_pipeline.market.rows import Columns, Tables
from synth_pipeline.market.wire import Encoder
from synth_pipeline.schema import Flag

_NS_PER_MS = 1_000_000
_LEVEL = ("price", "size")


class Told(NamedTuple):
    """A message on its way, in the order in which messages go out."""

    seq: int
    kind: int
    number: int
    received_ns: int
    payload: bytes


class Recorder:
    """Turns pieces of rows into messages; ids of depth updates follow each other over pieces."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last_id = 0

    def messages(self, piece: Tables) -> Iterator[tuple[int, bytes]]:
        """Yield when each message was received, and its payload."""
        streams = self._books(piece["book_levels"]), self._quotes(piece["quotes"]), self._trades(piece["trades"])
        return ((told.received_ns, told.payload) for told in merge(*streams))

    def _books(self, rows: Columns) -> Iterator[Told]:
        ends = np.flatnonzero(rows["flags"] & Flag.LAST) + 1
        levels = np.stack([rows[name] for name in _LEVEL], axis=1).tolist()
        sides, flags = rows["side"].tolist(), rows["flags"].tolist()
        first = 0
        for end in ends.tolist():
            bids = [levels[row] for row in range(first, end) if sides[row] > 0]
            asks = [levels[row] for row in range(first, end) if sides[row] < 0]
            seq, last_id, event_ns = (int(rows[name][first]) for name in ("seq", "update_id", "event_ns"))
            at_ms = event_ns // _NS_PER_MS
            if flags[first] & Flag.SNAPSHOT:
                payload = self._encoder.snapshot(sent_ms=at_ms, event_ms=at_ms, last_id=last_id, bids=bids, asks=asks)
            else:
                payload = self._encoder.depth_update(
                    sent_ms=at_ms,
                    event_ms=at_ms,
                    first_id=self._last_id + 1,
                    last_id=last_id,
                    previous_id=self._last_id,
                    bids=bids,
                    asks=asks,
                )
            yield Told(seq, 0, first, int(rows["recv_ns"][first]), payload)
            self._last_id, first = last_id, end

    def _quotes(self, rows: Columns) -> Iterator[Told]:
        names = ("seq", "recv_ns", "event_ns", "update_id", "bid_price", "bid_size", "ask_price", "ask_size")
        for number, values in enumerate(zip(*(rows[name].tolist() for name in names), strict=True)):
            seq, received_ns, event_ns, update_id, bid, bid_size, ask, ask_size = values
            at_ms = event_ns // _NS_PER_MS
            payload = self._encoder.book_ticker(
                sent_ms=at_ms, event_ms=at_ms, update_id=update_id, bid=(bid, bid_size), ask=(ask, ask_size)
            )
            yield Told(seq, 1, number, received_ns, payload)

    def _trades(self, rows: Columns) -> Iterator[Told]:
        names = ("seq", "recv_ns", "event_ns", "trade_id", "price", "size", "side")
        for number, values in enumerate(zip(*(rows[name].tolist() for name in names), strict=True)):
            seq, received_ns, event_ns, trade_id, price, size, side = values
            at_ms = event_ns // _NS_PER_MS
            payload = self._encoder.trade(
                sent_ms=at_ms, event_ms=at_ms, trade_id=trade_id, price=price, size=size, buyer_is_maker=side < 0
            )
            yield Told(seq, 2, number, received_ns, payload)
