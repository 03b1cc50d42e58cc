"""Bitstamp's order events as a table.

    id,timestamp,exchange.timestamp,price,volume,action,direction
    65595247,1430438404518,1430438404000,236.47,200000000,created,bid

`timestamp` is the receipt (ms or finer), `exchange.timestamp` when the order came; `volume` is what remains of it, in
units of 1e-8 where it is a whole number. The rest is as in `bitstamp`: no opening book, no trades.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synth_pipeline.archives import bitstamp
from synth_pipeline.archives.csv import CsvArchive, Layout, Reading, first_lines, header_of, peek
from synth_pipeline.archives.drafts import Fault, Piece
from synth_pipeline.archives.fields import NO_TIME, Fields

_COLUMNS = ("id", "timestamp", "exchange.timestamp", "price", "volume", "action", "direction")


class BitstampOrders(CsvArchive):
    """Bitstamp's order events as a table."""

    venue = "bitstamp"

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """Its header."""
        return header_of(head)[: len(_COLUMNS)] == _COLUMNS

    def layout(self, path: Path) -> Layout:
        """Return the columns."""
        preamble, line = first_lines(peek(path))
        return Layout(header_of(line), preamble + line)

    def symbols(self, path: Path) -> list[str]:
        """Return the symbol of the file's name."""
        return bitstamp.symbols_of_name(path)

    def tables(self, path: Path) -> tuple[str, ...]:  # noqa: ARG002 - orders only
        """Return orders."""
        return ("order_events",)

    def read(self, path: Path, layout: Layout, fields: Fields, first: int) -> Reading:  # noqa: ARG002
        """Read order events."""
        recv_ns, _ = fields.times(1)
        came_ns, _ = fields.times(2)
        kinds = fields.one_of(5, ("created", "changed", "deleted"))
        event_ns = np.where((kinds == 0) & (came_ns != NO_TIME), came_ns, 0)
        ids, whole = fields.integers(0)
        faults = np.where(kinds < 0, Fault.UNKNOWN_KIND, np.where(whole, 0, Fault.MALFORMED_ID)).astype(np.uint8)
        return Reading(recv_ns, event_ns, lambda: [_orders(fields, ids, kinds)], faults)


def _orders(fields: Fields, ids: np.ndarray, kinds: np.ndarray) -> Piece:
    volumes = fields.decimals(4)
    in_units = volumes.exponent >= 0
    volumes = volumes._replace(
        exponent=np.where(in_units & (volumes.mantissa != 0), volumes.exponent - 8, volumes.exponent)
    )
    rows = len(ids)
    sides = fields.one_of(6, ("bid", "ask"))
    return bitstamp.order_piece(
        np.arange(rows), ids, kinds, sides, np.zeros(rows, np.uint8), fields.decimals(3), volumes
    )
