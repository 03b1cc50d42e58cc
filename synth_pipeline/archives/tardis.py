"""Tardis.dev CSV files: incremental_book_L2, trades, quotes (book_ticker) and book_snapshot_N.

Format: https://docs.tardis.dev/downloadable-csv-files. Every file begins `exchange,symbol,timestamp,local_timestamp`,
both in µs; `local_timestamp` is the receipt, by which files are sorted:

    incremental_book_L2   …,is_snapshot,side,price,amount      amount is absolute, 0 removes the level
    trades                …,id,side,price,amount
    quotes                …,ask_amount,ask_price,bid_price,bid_amount
    book_snapshot_N       …,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,asks[1].price,…

Rows of one `local_timestamp` are one event. A snapshot in the middle of a file means that the connection was lost
before it. derivative_ticker, options_chain and liquidations hold no ticks of the order book and are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synth_pipeline.archives import columns
from synth_pipeline.archives.csv import CsvArchive, Layout, Reading, first_lines, header_of, peek
from synth_pipeline.archives.drafts import Piece
from synth_pipeline.archives.fields import Fields
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Flag

_SHARED = ("exchange", "symbol", "timestamp", "local_timestamp")
_KINDS = {
    "is_snapshot": "incremental_book_L2",
    "id": "trades",
    "ask_amount": "quotes",
    "asks[0].price": "book_snapshot",
    "bids[0].price": "book_snapshot",
}
"""The fifth column by kind."""
VENUES = {
    "binance": "binance_spot",
    "binance-futures": "binance_usdm",
    "binance-delivery": "binance_coinm",
    "bybit-spot": "bybit_spot",
}
"""Venues by Tardis' name of the exchange, where that differs by more than its dashes."""


class Tardis(CsvArchive):
    """Tardis.dev CSV files."""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A header that begins with Tardis' four columns."""
        return header_of(head)[:4] == _SHARED

    def layout(self, path: Path) -> Layout:
        """Return the columns. Raises `InputError` for kinds without ticks."""
        head = peek(path)
        preamble, line = first_lines(head)
        names = header_of(head)
        if len(names) < 5 or names[4] not in _KINDS or "_liquidations_" in path.name:
            raise InputError(
                f"{path} is a Tardis file without ticks of the book ({', '.join(names[4:8])}): give "
                "incremental_book_L2, trades, quotes or book_snapshot files"
            )
        layout = Layout(names, preamble + line, symbol="symbol")
        if _KINDS[names[4]] == "book_snapshot" and not _levels(layout):
            raise InputError(f"{path} is a Tardis snapshot file whose header is damaged: fetch the file again")
        return layout

    def venue_of(self, path: Path) -> str | None:
        """Return the venue of the first record's exchange."""
        layout = self.layout(path)
        record = peek(path)[len(layout.preamble) :].partition(b"\n")[0].decode("utf-8", "replace").split(",")
        exchange = record[0].lower()
        if exchange == "bybit":
            return "bybit_inverse" if record[1].upper().endswith("USD") else "bybit_linear"
        return VENUES.get(exchange, exchange.replace("-", "_")) or None

    def tables(self, path: Path) -> tuple[str, ...]:
        """Return what the fifth column says."""
        kind = _KINDS[self.layout(path).columns[4]]
        return {"incremental_book_L2": ("book_levels",), "book_snapshot": ("quotes", "book_levels")}.get(kind, (kind,))

    def visible_levels(self, path: Path) -> int:
        """Return N of book_snapshot_N."""
        return len(_levels(self.layout(path)))

    def read(self, path: Path, layout: Layout, fields: Fields, first: int) -> Reading:  # noqa: ARG002
        """Read rows of any kind."""
        event_ns, _ = fields.times(2)
        recv_ns, _ = fields.times(3)
        return Reading(recv_ns, event_ns, lambda: [self._piece(layout, fields, first, recv_ns)])

    @staticmethod
    def _piece(layout: Layout, fields: Fields, first: int, recv_ns: np.ndarray) -> Piece:
        match _KINDS[layout.columns[4]]:
            case "trades":
                side = columns.sides(fields, 5, ("buy", "sell"), ("unknown", ""))
                return columns.trades(fields, 6, 7, side, columns.ids(fields, 4, first))
            case "quotes":
                return columns.quotes(fields, (6, 7), (5, 4), columns.ids(fields, None, first))
            case "incremental_book_L2":
                is_snapshot = fields.one_of(4, ("true",)) == 0
                flags = np.where(is_snapshot, np.uint8(Flag.SNAPSHOT), np.uint8(0))
                return columns.levels(
                    fields, 6, 7, columns.sides(fields, 5, ("bid", "ask")), flags, 2 * recv_ns + is_snapshot, first
                )
        asks, bids = zip(*_levels(layout), strict=True)
        return columns.windows(fields, asks, bids, first)


def _levels(layout: Layout) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the columns of price and amount of ask and bid, level by level, as far as all four are there."""
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    names = set(layout.columns)
    while {f"{side}[{len(found)}].{what}" for side in ("asks", "bids") for what in ("price", "amount")} <= names:
        ask, bid = (
            (layout.index(f"{side}[{len(found)}].price"), layout.index(f"{side}[{len(found)}].amount"))
            for side in ("asks", "bids")
        )
        found.append((ask, bid))
    return found
